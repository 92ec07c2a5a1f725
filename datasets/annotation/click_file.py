"""Click files: `datasets/clicks/<frames>/<annotator>.json`, one a frame set and annotator.

    {
    "format": "fovea-clicks/1",
    "canvas": 400,
    "frames": {
    "000-00000412": {"sha256": "9f2c…", "clicks": [[201.5, 133.0], [198.2, 140.7]], "crc32": 31749}
    }
    }

A frame's key is its stream and its number in the stream, and `sha256` is the digest of its pixels.
A click is x to the right and y down on a canvas of 400x400, whatever the frame's size. `crc32`
covers the rest of its line, so that a damaged line is detected; each line has its own because git
merges lines. A line without it, from an older file or an edit by hand, is accepted unchecked. Files
are small, so they are read and written whole. A change names the clicks that it replaces.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.annotation.maps import CANVAS, Clicks
from datasets.errors import FoveaError, brief, quoted
from datasets.files import parse_json, sync, write_atomic

CLICKS = Path("datasets/clicks")  # a folder for each entry of frames; committed
FORMAT = "fovea-clicks/1"
LOCK = ".clicks.lock"  # in the folder of the files that it guards
KEY = re.compile(r"\d{3}-\d{8}")
DIGEST = re.compile(r"[0-9a-f]{64}")
ANNOTATOR = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
MOST = 1000  # clicks on one frame
MAX_BYTES = 1 << 24  # of a file

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class FrameClicks:
    """The clicks of one annotator on one frame."""

    sha256: str
    points: Points

    @property
    def clicks(self) -> Clicks:
        """The points as an array."""
        return np.array(self.points, np.float64).reshape(-1, 2)


def check_picture(path: Path, key: str, clicked: FrameClicks, here: str) -> None:
    """Raise FoveaError where the clicks are of another image than the frame's, of digest `here`."""
    if clicked.sha256 != here:
        raise FoveaError(
            f"{path}: the clicks on frame {key} are of another image (SHA-256 "
            f"{clicked.sha256[:12]}, the frame's is {here[:12]}); restore those frames, or move "
            "the file away and annotate these"
        )


class ConflictError(Exception):
    """The frame's clicks were changed in the meantime; `points` are those on disk."""

    def __init__(self, points: Points) -> None:
        super().__init__("changed in the meantime")
        self.points = points


def path_of(folder: Path, annotator: str) -> Path:
    """The file of an annotator's clicks. Raises FoveaError for an invalid name."""
    if not ANNOTATOR.fullmatch(annotator):
        raise FoveaError(
            f"annotator {annotator!r}: a name consists of a-z, 0-9 and '-'; choose one with --as … "
            "(with make AS=…)"
        )
    return folder / f"{annotator}.json"


def read_clicks(path: Path) -> dict[str, FrameClicks]:
    """Frame key -> its clicks; empty without a file.

    Raises FoveaError naming the file, and the frame where there is one.
    """
    if not path.exists():
        return {}
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES} bytes")
        value = parse_json(path.read_bytes())
        if not isinstance(value, dict) or set(value) != {"format", "canvas", "frames"}:
            raise ValueError("its keys are not those of a click file")
        if value["format"] != FORMAT or value["canvas"] != CANVAS:
            raise ValueError(f"not {FORMAT} on a canvas of {CANVAS:g}")
        return {key: _one_frame(key, value) for key, value in value["frames"].items()}
    except (ValueError, AttributeError) as error:
        raise FoveaError(
            f"{path}: damaged or not a click file ({brief(error)}); repair it or move it away; "
            f"`git checkout {path}` restores the committed file"
        ) from error


def change(path: Path, key: str, sha256: str, *, before: Points, after: Points) -> None:
    """Replace the clicks on one frame, on disk when this returns.

    Raises ConflictError, and changes nothing, where the clicks on disk are neither `before` nor
    `after`: another tab, another server or an editor may have changed the file.
    """
    with _lock(path.parent):
        marked = read_clicks(path)
        now = marked[key].points if key in marked else ()
        if now != after:
            if now != before:
                raise ConflictError(now)
            write_clicks(path, marked | {key: FrameClicks(sha256, after)})
        sync(path.parent)  # an earlier writer may have been killed before that


def write_clicks(path: Path, marked: Mapping[str, FrameClicks]) -> None:
    """Write one line a frame; frames without clicks are left out."""
    lines = [
        f'"{key}": {{"sha256": "{one.sha256}", "clicks": {json.dumps(one.points)}, '
        f'"crc32": {_crc32(key, one)}}}'
        for key, one in sorted(marked.items())
        if one.points
    ]
    head = f'{{\n"format": "{FORMAT}",\n"canvas": {CANVAS:g},\n"frames": {{\n'
    write_atomic(path, (head + ",\n".join(lines) + "\n}\n}\n").encode())


def read_points(value: object) -> Points:
    """Clicks from JSON, rounded to a tenth of a canvas pixel. Raises ValueError for all else."""
    if not isinstance(value, list) or len(value) > MOST:
        raise ValueError(f"clicks: not a list of up to {MOST}")
    points = []
    for number, pair in enumerate(value, 1):
        if not isinstance(pair, list) or [type(x) in (int, float) for x in pair] != [True] * 2:
            raise ValueError(f"click {number}: {quoted(pair)} is not a pair of numbers")
        if not all(0 <= x <= CANVAS for x in pair):
            raise ValueError(
                f"click {number}: {quoted(pair)} is outside of the frame, 0 to {CANVAS:g}"
            )
        points.append((round(float(pair[0]), 1), round(float(pair[1]), 1)))
    return tuple(points)


def _one_frame(key: str, value: object) -> FrameClicks:
    if not KEY.fullmatch(key):
        raise ValueError(f"frame {quoted(key)}: not a frame's key")
    if not isinstance(value, dict) or value.keys() - {"crc32"} != {"sha256", "clicks"}:
        raise ValueError(f"frame {key}: its keys are not sha256, clicks and crc32")
    digest = value["sha256"]
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise ValueError(f"frame {key}: {quoted(digest)} is not a SHA-256")
    try:
        clicked = FrameClicks(digest, read_points(value["clicks"]))
    except ValueError as error:
        raise ValueError(f"frame {key}: {error}") from error
    if value.get("crc32", _crc32(key, clicked)) != _crc32(key, clicked):
        raise ValueError(
            f"frame {key}: its line does not match its crc32; after an edit by hand, delete crc32"
        )
    return clicked


def _crc32(key: str, one: FrameClicks) -> int:
    points = [[float(x), float(y)] for x, y in one.points]
    return zlib.crc32(f"{key} {one.sha256} {json.dumps(points)}".encode())


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keep other processes from changing click files in the folder meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:  # a writable file: NFS cannot lock any other
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
