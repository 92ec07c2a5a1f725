"""A simulated annotator, who clicks near the true positions of a task's objects.

It replaces the people of ViSaRL (Liang et al.), who clicked some 25 times on each of 30 random
frames. As in their released clicks, the number of clicks a frame is about N(25, 5.8), and they
scatter with a standard deviation of 10 pixels on a 400x400 canvas.

On Meta-World about 45 % of the clicks are at the gripper's tip, 40 % at the object and 15 % at the
goal, in the proportions of the only map of theirs that is available. On Atari, which they did not
annotate, all of a frame's objects (ram.py) are equally likely. BattleZone, SPIRL's fourth game, is
refused like any game that ram.py does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from datasets.annotation import maps, ram
from datasets.annotation.choice import order
from datasets.annotation.maps import CANVAS, Clicks
from datasets.annotation.ram import GAMES, SCREEN, Box, boxes, game_of
from datasets.checked import Checked, Natural, NonNegative, Range
from datasets.errors import FoveaError
from datasets.shards import FrameSet

SPREAD, STORED = maps.SPREAD, False
SHARES = (0.45, 0.4, 0.15)  # of clicks at the tip, the object and the goal of Meta-World
Targets = tuple[NDArray[np.float64], NDArray[np.float64]]  # (K, 2) on the canvas, (K,) shares


@dataclass(frozen=True)
class Config(Checked):
    """How the simulated annotator clicks."""

    seed: Natural = 0  # of the order of frames, and of the clicks
    mean: Annotated[float, Range(1)] = 25.0  # clicks a frame
    deviation: NonNegative = 5.8  # of the number of clicks
    jitter: NonNegative = 10.0  # standard deviation of a click about its object, in canvas pixels


def annotate(
    config: Config, env: str, frames: FrameSet, count: int, folder: Path | None = None
) -> dict[str, dict[int, Clicks]]:
    """Clicks on `count` random frames that show an object; no files are read.

    Returns "simulated" -> index into `frames` -> (n, 2) clicks, in the random order: a smaller
    count gives the first of them. Raises FoveaError for a game that ram.py does not have, and where
    fewer frames show an object.
    """
    targets = _targets(env, frames)
    usable = (i for i in order(frames, config.seed) if len(targets(i)[0]))
    clicks = {i: _clicks(config, i, *targets(i)) for i in islice(usable, count)}
    if len(clicks) < count:
        raise FoveaError(
            f"annotator simulated: {len(clicks) or 'no'} frames of {len(frames)} of {env} show an "
            f"object, count is {count}; lower `count` or collect more frames"
        )
    return {"simulated": clicks}


def check(env: str, info: Collection[str]) -> None:
    """Raise FoveaError for an environment whose objects are not known, or frames without RAM."""
    ram.check("simulated", env, info)


def second_annotator(
    config: Config, env: str, frames: FrameSet, indices: Sequence[int]
) -> list[Clicks]:
    """The clicks (n, 2) of a second simulated annotator on each of these frames."""
    targets = _targets(env, frames)
    other = replace(config, seed=config.seed + 1)
    return [_clicks(other, i, *targets(i)) for i in indices]


def _targets(env: str, frames: FrameSet) -> Callable[[int], Targets]:
    """Index into `frames` -> the objects in its image, and each one's share of the clicks."""
    game = game_of(env)
    if env.startswith("metaworld/") and "points" in frames.info:
        height, width = frames.images.shape[1:3]
        points = frames.info["points"].astype(np.float64) * CANVAS / (width, height)
        visible = np.all((points >= 0) & (points < CANVAS), axis=-1)
        shares = np.array(SHARES)
        return lambda i: (points[i][visible[i]], shares[visible[i]])
    if game in GAMES and "ram" in frames.info:
        return lambda i: _evenly(boxes(game, frames.info["ram"][i]))
    raise ram.unknown("simulated", env)


def _evenly(objects: list[Box]) -> Targets:
    centres = np.array([box.centre for box in objects]).reshape(-1, 2)
    return centres * CANVAS / SCREEN, np.ones(len(objects))


def _clicks(
    config: Config, index: int, points: NDArray[np.float64], shares: NDArray[np.float64]
) -> Clicks:
    rng = np.random.default_rng((config.seed, index))
    number = max(1, round(rng.normal(config.mean, config.deviation)))
    centres = points[rng.choice(len(points), number, p=shares / shares.sum())]
    clicks: Clicks = centres + rng.normal(0.0, config.jitter, centres.shape)
    return clicks.clip(0.0, CANVAS)
