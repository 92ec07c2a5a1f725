"""Files on their way between the head of a cluster and its nodes.

A file is named relative to the working folder, on the head as in a node's folder for one job. Both
sides check every name before they write. The head writes what a job sends in the job's own order,
a digest before its file (datasets/sealed.py). So the head's folder is at any moment one that an
interruption on the head itself would have left, and a task goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from datasets.errors import FoveaError
from datasets.files import inside, write_atomic

Piece = tuple[str, int, bytes]  # a file's name, a place in it, and its bytes from there on
UNUSED = 7 * 86_400  # seconds after which an input is deleted from a node
GROWS = "events.out.tfevents."  # TensorBoard's logs are the only files that are appended to


@dataclass(frozen=True)
class Parcel:
    """What has changed in some places."""

    pieces: Sequence[Piece] = ()
    removed: Sequence[str] = ()


@dataclass(frozen=True)
class Input:
    """A file or folder that tasks read."""

    place: Path  # where the task expects it
    digest: str  # of all names and bytes


def owns(place: Path, path: Path) -> bool:
    """Whether a place has a file: a folder all below it; a file itself and its digest, and so all
    files of a pattern, such as `out/003-*`.
    """
    name = path.name.removeprefix(".").removesuffix(".sha256")
    beside = path.parent == place.parent and fnmatchcase(name, place.name)
    return beside or place in path.parents


class Changes:
    """The changes of the files in some places since the call before."""

    def __init__(self, places: Iterable[Path]) -> None:
        """What is there now is known."""
        self._places = tuple(places)
        self._known = self._look()

    def __call__(self) -> Parcel:
        """The new bytes, in the order in which the files were written."""
        before, self._known = self._known, self._look()
        pieces = []
        for path in sorted(self._known, key=lambda path: (self._known[path][0], path.name)):
            if self._known[path] != before.get(path):
                start = before[path][1] if path.name.startswith(GROWS) and path in before else 0
                with path.open("rb") as file:
                    file.seek(start)
                    # Up to the size that is known: a log may grow meanwhile.
                    pieces.append((path.as_posix(), start, file.read(self._known[path][1] - start)))
        return Parcel(pieces, [path.as_posix() for path in before if path not in self._known])

    def _look(self) -> dict[Path, tuple[int, int, int]]:
        """Each file's time, size and number, of which one changes with its bytes."""
        files = {}
        for place in self._places:
            for path in place.rglob("*") if place.is_dir() else place.parent.glob("*"):
                if path.is_file() and path.suffix != ".tmp" and owns(place, path):
                    facts = path.stat()
                    files[path] = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
        return files


def everything(places: Iterable[Path]) -> Parcel:
    """All files in some places."""
    changes = Changes(places)
    changes._known = {}
    return changes()


def write(parcel: Parcel, places: Sequence[Path]) -> None:
    """Make the same changes here.

    Raises FoveaError, and writes nothing, for a name that is not in `places`.
    """
    names = [name for name, _, _ in parcel.pieces]
    paths = [_checked(name, places) for name in (*names, *parcel.removed)]
    pieces = zip(paths, parcel.pieces, strict=False)
    for path, (_, start, data) in sorted(pieces, key=lambda piece: piece[0].name[0] != "."):
        path.parent.mkdir(parents=True, exist_ok=True)
        if start:
            with path.open("r+b") as file:
                file.seek(start)
                file.write(data)
        else:
            write_atomic(path, data)
    for path in paths[len(names) :]:
        path.unlink(missing_ok=True)


def read_input(path: Path) -> tuple[str, list[Piece]]:
    """The digest of a file or folder, and its bytes; names are relative to the folder above it."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    pieces = [(file.relative_to(path.parent).as_posix(), 0, file.read_bytes()) for file in files]
    return _digest(pieces), pieces


def fetch(source: Input, cache: Path, get: Callable[[], Sequence[Piece]]) -> Path:
    """The path of an input in a node's cache, to which the first job that needs it writes it.

    Raises FoveaError for a name outside of the input's folder, and for other bytes.
    """
    folder = cache / source.digest
    if not folder.exists():
        pieces = get()
        if _digest(pieces) != source.digest:
            raise FoveaError(f"{source.place}: arrived with other bytes; run the stage again")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as fresh:
            for name, _, data in pieces:
                path = _named(Path(fresh, "files"), name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                path.chmod(0o444)
            try:
                os.rename(Path(fresh, "files"), folder)
            except OSError:  # another job was faster
                if not folder.exists():
                    raise
    os.utime(folder)
    for old in cache.iterdir():
        if time.time() - old.stat().st_mtime > UNUSED:
            shutil.rmtree(old, ignore_errors=True)
    return folder / source.place.name


def _named(folder: Path, name: str) -> Path:
    try:
        return inside(folder, name)
    except ValueError as error:
        raise FoveaError(f"a file of a job: {error}; nothing of it is written") from error


def _checked(name: str, places: Sequence[Path]) -> Path:
    path = _named(Path(), name)
    if not any(owns(place, path) for place in places):
        raise FoveaError(f"{name}: not a file of this job; nothing of it is written")
    return path


def _digest(pieces: Iterable[Piece]) -> str:
    whole = hashlib.sha256()
    for name, _, data in pieces:
        whole.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\0".encode())
    return whole.hexdigest()
