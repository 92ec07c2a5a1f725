"""People's clicks, as the page of `make annotate` saved them, or imported from ViSaRL's own tool.

Several people's files stand side by side; their maps are averaged, each frame's over those who
clicked on it, and brought back to a maximum of 255 (maps.py says why).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets.annotation.choice import digest, keys, order
from datasets.annotation.click_file import check_picture, read_clicks
from datasets.annotation.maps import Clicks
from datasets.errors import FoveaError
from datasets.shards import FrameSet


@dataclass(frozen=True)
class Config:
    """Which frames are shown."""

    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values."""
        if self.seed < 0:
            raise ValueError(f"seed: {self.seed}, must be at least 0")


def annotate(
    config: Config, env: str, frames: FrameSet, count: int, folder: Path
) -> dict[str, dict[int, Clicks]]:
    """Annotator -> index into `frames` -> (n, 2) clicks, from the click files of a folder.

    Raises FoveaError naming file and frame where clicks are of other frames than these or damaged,
    and where one of the `count` frames has none yet.
    """
    index = {key: number for number, key in enumerate(keys(frames))}
    shown = order(frames, config.seed)[:count]
    found: dict[str, dict[int, Clicks]] = {}
    for path in sorted(folder.glob("*.json")):
        clicked = {}
        for key, one in read_clicks(path).items():
            here = digest(frames, index[key]) if key in index else "no such frame"
            check_picture(path, key, one, here)
            clicked[index[key]] = one.clicks
        kept = {number: clicked[number] for number in shown if len(clicked.get(number, ()))}
        if kept:
            found[path.stem] = kept
    done = {number for clicked in found.values() for number in clicked}
    if len(done) < len(shown):
        raise FoveaError(
            f"{folder}: {len(done) or 'none'} of {len(shown)} frames have clicks; `make annotate "
            "NAME=<this entry of annotations> AS=<you>` opens a page to click on, `annotator: "
            "simulated` does without people"
        )
    return found
