"""The positions of a game's objects, read from the emulator's RAM: boxes on its 160x210 screen.

The cells and offsets were compared with rendered pixels (centres within about 2.5 pixels) and with
OCAtari's (tests/datasets/ocatari.json). OCAtari also has Berzerk's robots between two rooms, where
none is rendered, and the upper part of a Frostbite player who has sunk by more than half. Anand et
al. (2019), the ground truth of other papers, have the same cells without sizes and offsets, and
Frostbite's rows without a height.

RAM has objects that no image shows: Ms. Pacman's ghosts flicker, and one in eleven is missing from
two consecutive screens. BattleZone is left out: the distance of a tank's centre from its x changes
with the sprite, and RAM still has tanks where the screen shows none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.errors import FoveaError

SCREEN = np.array([160.0, 210.0])  # width, height of the emulator's screen


@dataclass(frozen=True, slots=True)
class Box:
    """An object: its kind, its upper left corner, width and height in screen pixels."""

    kind: str
    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y)."""
        return self.x + self.width / 2, self.y + self.height / 2


def boxes(game: str, ram: NDArray[np.generic]) -> list[Box]:
    """The game's objects whose centre is on the screen, from RAM (128,) uint8."""
    # Plain integers: in uint8 the offsets below would wrap around.
    objects = GAMES[game]([int(cell) for cell in ram])
    return [box for box in objects if np.all((box.centre >= np.zeros(2)) & (box.centre < SCREEN))]


def _ms_pacman(ram: list[int]) -> list[Box]:
    """Player, four ghosts, fruit; sprites of 9x10. There are ghosts while cell 47 is above 0;
    pellets are left out, as in Anand et al.
    """
    kinds = [("player", 10)] + [("ghost", cell) for cell in (6, 7, 8, 9) if ram[47] > 0]
    if ram[11] > 0 and ram[17] > 0:
        kinds.append(("fruit", 11))
    return [Box(kind, ram[cell] - 13, ram[cell + 6] + 1, 9, 10) for kind, cell in kinds]


def _frostbite(ram: list[int]) -> list[Box]:
    """Player, bear, and in each of four rows the animals (one or two) and three ice floes."""
    objects = []
    if ram[107] < 9:  # rows of the player that have sunk, of 18
        objects.append(Box("player", ram[102], ram[100] + 29, 8, 18))
    if ram[104] != 140:
        objects.append(Box("bear", ram[104] + 3, 58, 14, 16))
    for row in range(4):
        animal, floe = ram[84 + row], ram[31 + row]
        for nth in range(2 if ram[88 + row] else 1):
            if animal != 0:
                objects.append(Box("animal", (animal + 32 * nth) % 160, 160 - 26 * row, 8, 8))
        for nth in range(3):
            objects.append(Box("floe", (floe + 32 * nth - 8) % 160, 174 - 26 * row, 24, 7))
    return objects


def _berzerk(ram: list[int]) -> list[Box]:
    """Player, up to eight robots, a missile of the player's and one of theirs."""
    if ram[80] >= 44:  # between two rooms
        return []
    objects = [Box("player", ram[19] + 4, ram[11] + 5, 8, 20)]
    for robot in range(8):
        x, y = ram[65 + robot], ram[56 + robot]
        if x != 0 and y != 127:
            objects.append(Box("robot", x + 6, 2 * y + 4, 8, 16))
    if ram[15] != 0:
        objects.append(Box("missile", ram[22] + 1, 2 * ram[23], 4, 6))  # whichever way it flies
    if ram[24] != 0:
        objects.append(Box("missile", ram[29], 2 * ram[30] - 1.5, 4, 3))
    return objects


def _seaquest(ram: list[int]) -> list[Box]:
    """Submarine, its shot, the patrol above, and the objects of each of four lanes."""
    objects = []
    depth = ram[97]
    if depth > 0 and not 0 < ram[105] < 14:  # a game is on, and the submarine is not exploding
        objects.append(Box("player", ram[70], depth + 32.5, 16, 11))
    if ram[103] > 0 and depth > 13:  # there are no shots at the surface
        objects.append(Box("missile", ram[103], depth + 40, 8, 1))
    if ram[60] > 1:
        objects.append(Box("patrol", ram[118] - 4, 43.5, 16, 11))
    for lane in range(4):
        top, boats = 137 - 24 * lane, ram[89 + lane] & 4  # boats and torpedoes, or fish and divers
        y = top + 8.5 if boats else top + 3.5 + ram[93]  # all fish bob together
        for nth, bit in enumerate((4, 2, 1)):
            if ram[36 + lane] & bit:
                objects.append(Box("animal", (ram[30 + lane] + 16 * nth) % 256, y - 4, 8, 8))
        if ram[71 + lane] > 0:
            x, y = (ram[71 + lane] + 1, top + 9.5) if boats else (ram[71 + lane], top)
            objects.append(Box("missile" if boats else "diver", x, y, 8, 1 if boats else 14))
    return [box for box in objects if box.centre[0] >= 8]  # a black bar covers the left edge


GAMES: dict[str, Callable[[list[int]], list[Box]]] = {
    "MsPacman": _ms_pacman,
    "Frostbite": _frostbite,
    "Berzerk": _berzerk,
    "Seaquest": _seaquest,
}


def check(annotator: str, env: str, info: Collection[str]) -> None:
    """Raise FoveaError where the places of an environment's objects are not known; it names those
    environments whose are. `info` is stored with each frame.
    """
    if env.partition("/")[0] == "metaworld":
        return
    if game_of(env) not in GAMES:
        raise unknown(annotator, env)
    if "ram" not in info:
        raise FoveaError(
            f"annotator {annotator}: reads RAM, but the frames' source stores {', '.join(info)}; "
            "name frames of another source"
        )


def unknown(annotator: str, env: str) -> FoveaError:
    """What an annotator says of an environment, or of frames, that does not tell its objects."""
    known = ", ".join(["metaworld/*", *(f"atari/{name}" for name in GAMES)])
    return FoveaError(f"annotator {annotator}: knows the objects of {known}, not of {env}")


def game_of(env: str) -> str:
    """The game of an environment, whatever its screen."""
    return env.partition("/")[2].partition("?")[0]
