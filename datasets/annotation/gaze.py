"""Where a person looked while playing: gaze that is stored with the frames (`source: atari_head`).

Nikulin et al. (2019), sec. 4.3: all gaze samples of the frames that an observation is made from and
stacked with; datasets/sources/atari_head.py counts them by pixel of 210x160. The map is their
density: a Gaussian of 5 such pixels for each sample, as in the paper's KL divergence, scaled to a
maximum of 255.

Frames without gaze, such as during a blink, are not annotated. So an exam's metrics are of frames
that have gaze.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from datasets.annotation.choice import order
from datasets.annotation.maps import CANVAS, Clicks
from datasets.checked import Checked, Natural
from datasets.errors import FoveaError
from datasets.shards import FrameSet

SCREEN = np.array([160.0, 210.0])  # width and height that gaze is measured in
SIGMA = 5.0  # pixels of it
SPREAD = (SIGMA * CANVAS / 160, SIGMA * CANVAS / 210)
STORED = True


@dataclass(frozen=True)
class Config(Checked):
    """Which frames are annotated."""

    seed: Natural = 0


def annotate(
    config: Config, env: str, frames: FrameSet, count: int, folder: Path | None = None
) -> dict[str, dict[int, Clicks]]:
    """Gaze on `count` random frames that have any; no files are read.

    Returns "gaze" -> index into `frames` -> (n, 2) samples on the canvas, in the random order.
    Raises FoveaError for frames without gaze, and where fewer have any.
    """
    check(env, frames.info)
    some = (index for index in order(frames, config.seed) if frames.info["gaze"][index, 0, 2])
    samples = {index: points(frames, index) for index in islice(some, count)}
    if len(samples) < count:
        raise FoveaError(
            f"annotator gaze: {len(samples) or 'no'} frames of {len(frames)} have gaze, count is "
            f"{count}; lower `count` or collect more frames"
        )
    return {"gaze": samples}


def points(frames: FrameSet, index: int) -> Clicks:
    """The samples (n, 2) on a frame, each in the middle of its pixel, on the canvas."""
    pixels = frames.info["gaze"][index].astype(np.int64)
    middle = (pixels[:, :2] + 0.5) * CANVAS / SCREEN
    return np.asarray(np.repeat(middle, pixels[:, 2], axis=0))


def check(env: str, info: Collection[str]) -> None:
    """Raise FoveaError for frames whose source stores no gaze."""
    if "gaze" not in info:
        raise FoveaError(
            f"annotator gaze: the frames of {env} have no gaze; name frames of `source: atari_head`"
        )
