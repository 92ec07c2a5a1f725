"""Files that a later run goes on from: written with their SHA-256, checked before they are used.

The digest of `name` stands beside it in `.name.sha256`, since many of these files are published and
keep their plain bytes. It is written first, and for as long as an older file is in the place, the
older file's digest stands below it: a kill at any moment leaves a file that one of them fits. A
file without a digest is one that nobody vouches for, so it counts as damaged.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from datasets.errors import FoveaError
from datasets.files import sha256_file, write_atomic


class DamagedError(FoveaError):
    """A file has other bytes than were written to it; the message names it."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: does not match its SHA-256 in {_beside(path).name}")


def write_sealed(path: Path, data: bytes) -> None:
    """Put `data` and its digest in place, each whole or not at all.

    Raises FoveaError where the disk is full; what was there before is still sound then.
    """
    digests = [hashlib.sha256(data).hexdigest(), *_sound_digests(path)]
    write_atomic(_beside(path), "".join(f"{digest}\n" for digest in digests).encode())
    write_atomic(path, data)


def read_sealed(path: Path) -> bytes:
    """The bytes of a sealed file.

    Raises DamagedError where they are not those that were written, FileNotFoundError without one.
    """
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() not in _recorded(path):
        raise DamagedError(path)
    return data


def is_sound(path: Path) -> bool:
    """Whether the file is there with the bytes that were written."""
    return bool(_sound_digests(path))


def kept(path: Path) -> bool:
    """Whether a piece of work is there and sound. A damaged one is deleted, and a line says so."""
    if is_sound(path):
        return True
    if path.exists():
        print(f"note: {DamagedError(path)}, so it is made again", file=sys.stderr, flush=True)
        remove_sealed(path)
    return False


def remove_sealed(path: Path) -> None:
    """Delete a file and its digest, where they are there."""
    path.unlink(missing_ok=True)
    _beside(path).unlink(missing_ok=True)


def check_sealed(folder: Path) -> None:
    """Raise DamagedError for a sealed file anywhere below `folder` that is missing or not sound."""
    for beside in sorted(folder.rglob(".*.sha256")):
        path = beside.with_name(beside.name[1:].removesuffix(".sha256"))
        if not is_sound(path):
            raise DamagedError(path)


def drop_digests(folder: Path) -> None:
    """Delete the digests below a folder that is finished: its manifest has them from here on."""
    for beside in folder.rglob(".*.sha256"):
        beside.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _sound_digests(path: Path) -> list[str]:
    """The digest of the bytes that are there, if it is among those recorded."""
    recorded = _recorded(path) if path.is_file() else []
    return [digest for digest in [sha256_file(path)] if digest in recorded] if recorded else []


def _recorded(path: Path) -> list[str]:
    """The digests beside a file, none where they cannot be read."""
    try:
        return _beside(path).read_text("ascii").split()
    except (OSError, ValueError):
        return []
