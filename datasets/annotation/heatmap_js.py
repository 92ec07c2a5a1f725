"""Clicks as ViSaRL's own tool stores them: heatmap.js's data, `annotations_NNN.txt` for each frame.

    {"min": 0, "max": 3, "data": [{"x": 201, "y": 133, "value": 1, "radius": 25}, …]}

Coordinates are on the same canvas of 400x400 as ours; `value` counts the clicks on one point.
"""

from __future__ import annotations

import re
from pathlib import Path

from datasets.annotation.click_file import MAX_BYTES, MOST, Points, read_points
from datasets.errors import FoveaError, brief
from datasets.files import parse_json

NAME = re.compile(r"annotations_(\d{1,6})\.txt")


def read(folder: Path, frames: int) -> dict[int, Points]:
    """Number of the frame, from 0 to `frames - 1` -> its clicks.

    Raises FoveaError naming a file with any other number or content.
    """
    clicks = {}
    for path in sorted(folder.glob("annotations_*.txt")):
        name = NAME.fullmatch(path.name)
        number = int(name[1]) if name else frames
        if number >= frames:
            raise FoveaError(f"{path}: the frames are 0 to {frames - 1}; remove this file")
        try:
            clicks[number] = _points(path)
        except (ValueError, KeyError, TypeError) as error:
            raise FoveaError(
                f"{path}: not clicks of heatmap.js ({type(error).__name__}: {brief(error)})"
            ) from error
    if not clicks:
        raise FoveaError(f"{folder}: no annotations_NNN.txt in it; name the folder that has them")
    return clicks


def _points(path: Path) -> Points:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    pairs: list[list[object]] = []
    for place in parse_json(path.read_bytes())["data"]:
        if not 1 <= place["value"] <= MOST or place["value"] != int(place["value"]):
            raise ValueError(f"value {place['value']}, must be a number of clicks")
        pairs += [[place["x"], place["y"]]] * int(place["value"])
        if len(pairs) > MOST:
            raise ValueError(f"more than {MOST} clicks")
    return read_points(pairs)
