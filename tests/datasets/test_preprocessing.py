"""Images made from nothing but what `envs.preprocessing` states are an environment's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ale_py
import ale_py.roms
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from datasets import envs

Image = NDArray[np.uint8]
STEPS = 12


class Remade:
    """An Atari game by its stated preprocessing, on the emulator alone."""

    def __init__(self, rom: str, stated: dict[str, Any]) -> None:
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale, self.stated = ale_py.ALEInterface(), stated
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.loadROM(Path(ale_py.roms.__file__).parent / f"{rom}.bin")
        self.image = np.zeros(0, np.uint8)

    def reset(self, noops: int) -> None:
        self.ale.reset_game()
        screens = []
        for _ in range(noops):
            self.ale.act(ale_py.Action.NOOP)
            screens.append(self.ale.getScreenRGB())
        self._render(screens[-1:])
        for name in self.stated["at_start"]:
            self.step(getattr(ale_py.Action, name))

    def step(self, action: Any) -> None:
        screens = []
        for _ in range(self.stated["frame_skip"]):
            self.ale.act(action)
            screens.append(self.ale.getScreenRGB())
        self._render(screens)

    def _render(self, screens: list[Image]) -> None:
        image = np.max(screens[-self.stated["maximum_of"] :], axis=0)
        if self.stated["colour"] == "luma":
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        _, height, width = self.stated["shape"]
        if self.stated["resize"]:
            how = getattr(cv2, self.stated["resize"])
            image = cv2.resize(image, (width, height), interpolation=how)
        self.image = image.reshape(height, width, -1)


@pytest.mark.parametrize("screen", ["rgb96", "gray84", "native"])
@pytest.mark.parametrize(("game", "rom"), [("Breakout", "breakout"), ("MsPacman", "ms_pacman")])
def test_atari_images_are_made_as_stated(game: str, rom: str, screen: str) -> None:
    name = f"atari/{game}?screen={screen}"
    stated, env = envs.preprocessing(name), envs.single(name, seed=3, index=0)
    image, _ = env.reset()
    remade = Remade(rom, stated)
    least, most = stated["noops"]
    assert (least, most) == (1, 30)
    numbers = envs.emulator_actions(name)

    def plays(noops: int) -> bool:
        remade.reset(noops)
        return bool(np.array_equal(remade.image, image))

    starts = [noops for noops in range(least, most + 1) if plays(noops)]
    assert starts, "no number of no-ops gives the first image"
    images = []
    for number in range(STEPS):
        images.append(env.step(number % len(numbers))[0])
    matching = 0
    for noops in starts:  # several give the same first image
        remade.reset(noops)
        same = True
        for number in range(STEPS):
            remade.step(ale_py.Action(numbers[number % len(numbers)]))
            same = same and np.array_equal(remade.image, images[number])
        matching += same
    assert matching >= 1
    assert any(not np.array_equal(one, image) for one in images)


def test_what_differs_between_games_is_stated_for_each() -> None:
    name = "atari/{Breakout,MsPacman}?screen=gray84"
    stated = envs.preprocessing(name)
    assert stated["env"] == name and stated["frame_skip"] == 4 and stated["shape"] == [1, 84, 84]
    assert stated["at_start"] == {
        "atari/Breakout?screen=gray84": ["FIRE", "RIGHT"],
        "atari/MsPacman?screen=gray84": [],
    }


def test_views_and_sizes_are_stated() -> None:
    stated = envs.preprocessing("metaworld/reach?view=upright&camera=corner2")
    assert stated["options"] == {"view": "upright", "render": "fast", "camera": "corner2"}
    assert stated["frame_skip"] == 5 and stated["noops"] is None
    assert envs.preprocessing("files/images?height=8&width=9")["shape"] == [3, 8, 9]


def test_metaworld_moves_the_simulation_as_far_as_stated() -> None:
    env: Any = envs.single("metaworld/reach", seed=0, index=0)
    env.reset()
    before = env._task.data.time
    env.step(np.zeros(4, np.float32))
    steps = (env._task.data.time - before) / env._task.model.opt.timestep
    assert round(steps) == envs.preprocessing("metaworld/reach")["frame_skip"]
