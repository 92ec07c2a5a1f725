"""Files that a later run goes on from: written with their SHA-256, checked before they are used.

The digest of `name` stands beside it in `.name.sha256`, since many of these files are published and
keep their plain bytes. It is written first, and for as long as an older file is in the place, the
older file's digest stands below it: a kill at any moment leaves a file that one of them fits. A
file without a digest is one that nobody vouches for, so it counts as damaged. A manifest has its
own digest inside, under `sha256`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.errors import FoveaError
from datasets.files import read_json, sha256_file, write_atomic

MANIFEST = "manifest.json"
DIGEST = "sha256"  # the key of a manifest's own


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


def keep_if_sound(path: Path) -> bool:
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


def write_manifest(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with the digest of all the rest of it."""
    digest = _digest_of(value)
    write_atomic(path, (json.dumps({**value, DIGEST: digest}, indent=1) + "\n").encode())


def read_manifest(path: Path) -> dict[str, Any]:
    """A JSON object that write_manifest() wrote, without its digest.

    Raises FoveaError naming the file where it is damaged, FileNotFoundError without one.
    """
    value = read_json(path)
    if not isinstance(value, dict) or value.pop(DIGEST, None) != _digest_of(value):
        raise FoveaError(f"{path}: does not match the SHA-256 in it")
    return value


def check_listed(path: Path) -> None:
    """Raise FoveaError for a file with other bytes than the manifest of its artifact lists.

    The manifest is in its folder or in the one above; without any there is nothing to check.
    """
    for folder in (path.parent, path.parent.parent):
        if (folder / MANIFEST).is_file():
            manifest = read_json(folder / MANIFEST)
            files: Any = manifest.get("files") if isinstance(manifest, dict) else None
            name = path.relative_to(folder).as_posix()
            listed = isinstance(files, dict) and name in files
            if listed and files[name] != sha256_file(path):
                raise FoveaError(
                    f"{path}: not the bytes that {folder / MANIFEST} lists; build or fetch it again"
                )
            return


def _digest_of(value: object) -> str:
    """The SHA-256 of what JSON makes of a value, whatever the order of its keys."""
    plain = json.dumps(json.loads(json.dumps(value, allow_nan=False)), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()


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
