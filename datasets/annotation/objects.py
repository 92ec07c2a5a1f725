"""The true positions of a frame's objects, one point each: ground truth for keypoints.

Wu, Khetarpal and Precup (2021), Table 1, score keypoints by RAM positions of Anand et al. (2019) on
Frostbite, Berzerk and Ms. Pacman. Their offsets and their choice of objects are not published. Here
a point is an object's centre (ram.py) on Atari. On Meta-World the points are the projections of
gripper, object and goal that lie within the frame.

`visible: true` leaves out objects that are in RAM but not in the frame, such as a flickering ghost:
an object is visible where a fifth of its box differs from the median frame. `omit` leaves out
kinds: Frostbite's twelve floes are more than seven keypoints can detect.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.annotation import maps, ram
from datasets.annotation.choice import order
from datasets.annotation.maps import CANVAS, Clicks
from datasets.annotation.ram import GAMES, SCREEN, Box, boxes, game_of
from datasets.checked import Checked, Natural
from datasets.errors import FoveaError
from datasets.pictures import spread
from datasets.shards import FrameSet

SPREAD, STORED = maps.SPREAD, False
KINDS = (
    "player", "ghost", "fruit", "bear", "animal", "floe", "robot", "missile", "patrol", "diver",
)  # fmt: skip
MEDIAN_OF = 500  # frames
# A box is visible where this share of its pixels differs by more than these grey levels.
MIN_SHARE, DIFFERENCE = 0.2, 24


@dataclass(frozen=True)
class Config(Checked):
    """Which frames, and which of their objects."""

    seed: Natural = 0
    visible: bool = False
    omit: tuple[str, ...] = ()

    def rules(self) -> Iterator[str]:
        """Kinds must be known."""
        for kind in self.omit:
            if kind not in KINDS:
                yield f"omit: {kind!r}, must be of {', '.join(KINDS)}"


def annotate(
    config: Config, env: str, frames: FrameSet, count: int, folder: Path | None = None
) -> dict[str, dict[int, Clicks]]:
    """Points on `count` random frames that have an object; no files are read.

    Returns "objects" -> index into `frames` -> (n, 2) points on the canvas, in the random order.
    Raises FoveaError for a game that ram.py does not have, and where fewer frames have an object.
    """
    points = _points(config, env, frames)
    usable = ((i, at) for i in order(frames, config.seed) if len(at := points(i)))
    points_of = dict(islice(usable, count))
    if len(points_of) < count:
        raise FoveaError(
            f"annotator objects: {len(points_of) or 'no'} frames of {len(frames)} of {env} have an "
            f"object, count is {count}; lower `count` or collect more frames"
        )
    return {"objects": points_of}


def check(env: str, info: Collection[str]) -> None:
    """Raise FoveaError for an environment whose objects are not known, or frames without RAM."""
    ram.check("objects", env, info)


def _points(config: Config, env: str, frames: FrameSet) -> Callable[[int], Clicks]:
    """Index into `frames` -> its objects' positions on the canvas."""
    game, (height, width) = game_of(env), frames.images.shape[1:3]
    if env.startswith("metaworld/") and "points" in frames.info:
        places = frames.info["points"].astype(np.float64) * CANVAS / (width, height)
        inside = np.all((places >= 0) & (places < CANVAS), axis=-1)  # NaN is not
        return lambda i: places[i][inside[i]]
    if game not in GAMES or "ram" not in frames.info:
        raise ram.unknown("objects", env)
    median = _median(frames.images) if config.visible else None

    def of_ram(i: int) -> Clicks:
        objects = [
            box
            for box in boxes(game, frames.info["ram"][i])
            if box.kind not in config.omit
            and (median is None or _visible(box, frames.images[i], median))
        ]
        centres = np.array([box.centre for box in objects], np.float64).reshape(-1, 2)
        return np.asarray(centres * CANVAS / SCREEN)

    return of_ram


def _median(images: NDArray[np.uint8]) -> NDArray[np.int16]:
    """The median image (H, W, C) of frames spread evenly over the set."""
    some = images[spread(len(images), MEDIAN_OF)]
    return np.asarray(np.median(some, axis=0), np.int16)


def _visible(box: Box, image: NDArray[np.uint8], median: NDArray[np.int16]) -> bool:
    """Whether enough of the box's pixels differ from the median frame."""
    scale = np.array(image.shape[1::-1]) / SCREEN
    left, top = np.floor(np.array([box.x, box.y]).clip(0) * scale).astype(int)
    right, bottom = np.ceil((np.array([box.x + box.width, box.y + box.height])) * scale).astype(int)
    part = np.s_[top : max(bottom, top + 1), left : max(right, left + 1)]
    differs = np.abs(image[part].astype(np.int16) - median[part]).max(axis=-1) > DIFFERENCE
    return bool(differs.mean() >= MIN_SHARE)
