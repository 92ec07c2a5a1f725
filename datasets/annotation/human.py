"""People's clicks, as the page of `make annotate` saved them, or imported from ViSaRL's own tool.

Each person has a file. A frame's map is the mean over those who clicked on it, scaled to a maximum
of 255 (maps.py says why).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from datasets.annotation import maps
from datasets.annotation.choice import digest, keys, order
from datasets.annotation.click_file import check_picture, read_clicks
from datasets.annotation.maps import Clicks
from datasets.checked import Checked, Natural
from datasets.errors import FoveaError
from datasets.shards import FrameSet

SPREAD, STORED = maps.SPREAD, False


@dataclass(frozen=True)
class Config(Checked):
    """Which frames are annotated."""

    seed: Natural = 0


def annotate(
    config: Config, env: str, frames: FrameSet, count: int, folder: Path
) -> dict[str, dict[int, Clicks]]:
    """Annotator -> index into `frames` -> (n, 2) clicks, from the click files of a folder.

    Raises FoveaError naming file and frame where clicks are damaged or of other frames than these,
    and where one of the `count` frames has no clicks yet.
    """
    index = {key: number for number, key in enumerate(keys(frames))}
    sample = order(frames, config.seed)[:count]
    annotations: dict[str, dict[int, Clicks]] = {}
    for path in sorted(folder.glob("[!.]*.json")):
        clicks = {}
        for key, one in read_clicks(path).items():
            here = digest(frames, index[key]) if key in index else "no such frame"
            check_picture(path, key, one, here)
            clicks[index[key]] = one.clicks
        nonempty = {number: clicks[number] for number in sample if len(clicks.get(number, ()))}
        if nonempty:
            annotations[path.stem] = nonempty
    complete = {number for clicks in annotations.values() for number in clicks}
    if len(complete) < len(sample):
        raise FoveaError(
            f"{folder}: {len(complete) or 'none'} of {len(sample)} frames have clicks; `make "
            "annotate NAME=<this entry of annotations> AS=<you>` opens an annotation page, "
            "`annotator: simulated` needs no people"
        )
    return annotations


def check(env: str, info: Collection[str]) -> None:
    """People can annotate any environment."""
