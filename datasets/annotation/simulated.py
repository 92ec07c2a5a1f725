"""A simulated annotator, who clicks on the objects of the task as the simulator knows them.

Stands in for the people of ViSaRL (Liang et al.), who clicked some 25 times on each of 30 random
frames. As in their released clicks the number of clicks a frame is about N(25, 5.8), scattered with
a standard deviation of 10 pixels on a 400x400 canvas.

On Meta-World about 45 % of the clicks are meant for the gripper's tip, 40 % for the object and 15 %
for the goal: where the one surviving map of theirs is strong and weak. On Atari, which they did not
annotate, all of a frame's objects are equally likely. The RAM cells and offsets of these objects
were compared with rendered pixels (centres within about 2.5 pixels of the 210x160 screen). Ms.
Pacman's ghosts flicker: RAM knows of some that no picture shows. BattleZone, SPIRL's fourth game,
is refused like any unknown one: the distance of a tank's centre from its x in RAM changes with the
sprite, and RAM still has tanks where the screen shows none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from datasets.annotation.choice import order
from datasets.annotation.maps import CANVAS, Clicks
from datasets.checked import Checked, Natural, NonNegative, Range
from datasets.errors import FoveaError
from datasets.shards import FrameSet

SHARES = (0.45, 0.4, 0.15)  # of clicks meant for the tip, the object and the goal of Meta-World
SCREEN = np.array([160.0, 210.0])  # width, height of the Atari emulator's screen

Points = list[tuple[float, float]]  # centres (x, y) in screen pixels
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
    """Clicks on `count` random frames of those that show something; no files are read.

    Returns "simulated" -> index into `frames` -> (n, 2) clicks, in the random order: those of a
    smaller count are the first. Raises FoveaError for a game whose objects are not known, and where
    fewer frames show any.
    """
    targets = _targets(env, frames)
    usable = (i for i in order(frames, config.seed) if len(targets(i)[0]))
    clicks = {i: _clicks(config, i, *targets(i)) for i in islice(usable, count)}
    if len(clicks) < count:
        raise FoveaError(
            f"annotator simulated: {len(clicks) or 'no'} frames of {len(frames)} of {env} show "
            f"anything to click on, {count} are asked for; lower `count` or collect more"
        )
    return {"simulated": clicks}


def again(config: Config, env: str, frames: FrameSet, indices: Sequence[int]) -> list[Clicks]:
    """The clicks of a second such annotator on the frames of these indices, (n, 2) each."""
    targets = _targets(env, frames)
    other = replace(config, seed=config.seed + 1)
    return [_clicks(other, i, *targets(i)) for i in indices]


def objects(game: str, ram: NDArray[np.generic]) -> Points:
    """Centres (x, y) of the game's objects on the 160x210 screen, from RAM (128,) uint8."""
    # Plain integers: in uint8 the offsets below would wrap around.
    points = GAMES[game]([int(cell) for cell in ram])
    return [(x, y) for x, y in points if 0 <= x < SCREEN[0] and 0 <= y < SCREEN[1]]


def _targets(env: str, frames: FrameSet) -> Callable[[int], Targets]:
    """Index into `frames` -> the objects in its picture, and the share of clicks each gets."""
    suite, _, game = env.partition("/")
    if suite == "metaworld" and "points" in frames.info:
        height, width = frames.images.shape[1:3]
        points = frames.info["points"].astype(np.float64) * CANVAS / (width, height)
        visible = np.all((points >= 0) & (points < CANVAS), axis=-1)
        shares = np.array(SHARES)
        return lambda i: (points[i][visible[i]], shares[visible[i]])
    if game in GAMES and "ram" in frames.info:
        return lambda i: _evenly(objects(game, frames.info["ram"][i]))
    known = ", ".join(["metaworld/*", *(f"atari/{name}" for name in GAMES)])
    raise FoveaError(f"annotator simulated: knows the objects of {known}, not of {env}")


def _evenly(points: Points) -> Targets:
    return np.array(points).reshape(-1, 2) * CANVAS / SCREEN, np.ones(len(points))


def _clicks(
    config: Config, index: int, points: NDArray[np.float64], shares: NDArray[np.float64]
) -> Clicks:
    rng = np.random.default_rng((config.seed, index))
    number = max(1, round(rng.normal(config.mean, config.deviation)))
    centres = points[rng.choice(len(points), number, p=shares / shares.sum())]
    clicks: Clicks = centres + rng.normal(0.0, config.jitter, centres.shape)
    return clicks.clip(0.0, CANVAS)


def _ms_pacman(ram: list[int]) -> Points:
    """Player, four ghosts, fruit; sprites of 9x10."""
    ghosts = [(ram[x], ram[x + 6]) for x in (6, 7, 8, 9)] if ram[47] > 0 else []
    fruit = [(ram[11], ram[17])] if ram[11] > 0 and ram[17] > 0 else []
    return [(x - 13 + 4.5, y + 1 + 5) for x, y in [(ram[10], ram[16]), *ghosts, *fruit]]


def _frostbite(ram: list[int]) -> Points:
    """Player, bear, and in each of four rows the animals (one or two) and three ice floes."""
    points: Points = []
    if ram[107] < 9:  # rows of the player that have sunk, of 18
        points.append((ram[102] + 4, ram[100] + 29 + 9))
    if ram[104] != 140:
        points.append((ram[104] + 3 + 7, 58 + 8))
    for row in range(4):
        animal, floe = ram[84 + row], ram[31 + row]
        for nth in range(2 if ram[88 + row] else 1):
            if animal != 0:
                points.append(((animal + 32 * nth) % 160 + 4, 160 - 26 * row + 4))
        for nth in range(3):
            points.append(((floe + 32 * nth - 8) % 160 + 12, 174 - 26 * row + 3.5))
    return points


def _berzerk(ram: list[int]) -> Points:
    """Player, up to eight robots, and one missile of theirs."""
    if ram[80] >= 44:  # between two rooms
        return []
    points: Points = [(ram[19] + 4 + 4, ram[11] + 5 + 10)]
    for robot in range(8):
        x, y = ram[65 + robot], ram[56 + robot]
        if x != 0 and y != 127:
            points.append((x + 6 + 4, 2 * y + 4 + 8))
    if ram[24] != 0:
        points.append((ram[29] + 2, 2 * ram[30]))
    return points


def _seaquest(ram: list[int]) -> Points:
    """Submarine, its shot, the patrol above, and in each of four lanes what swims there."""
    points: Points = []
    depth = ram[97]
    if depth > 0 and not 0 < ram[105] < 14:  # there is a game, and it is not being blown up
        points.append((ram[70] + 8, depth + 38))
    if ram[103] > 0 and depth > 13:  # nothing is shot at the surface
        points.append((ram[103] + 4, depth + 40.5))
    if ram[60] > 1:
        points.append((ram[118] + 4, 49))
    for lane in range(4):
        top, armed = 137 - 24 * lane, ram[89 + lane] & 4  # boats and torpedoes, or fish and divers
        y = top + 8.5 if armed else top + 3.5 + ram[93]  # all fish bob together
        for nth, bit in enumerate((4, 2, 1)):
            if ram[36 + lane] & bit:
                points.append(((ram[30 + lane] + 16 * nth) % 256 + 4, y))
        if ram[71 + lane] > 0:
            points.append((ram[71 + lane] + (5 if armed else 4), top + (10 if armed else 7)))
    return [point for point in points if point[0] >= 8]  # a black bar covers the left edge


GAMES: dict[str, Callable[[list[int]], Points]] = {
    "MsPacman": _ms_pacman,
    "Frostbite": _frostbite,
    "Berzerk": _berzerk,
    "Seaquest": _seaquest,
}
