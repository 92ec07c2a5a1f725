"""Environments as a user writes them, registered in Gymnasium when this module is imported."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from numpy.typing import NDArray

SIDE = 20  # pixels of a rendered image


class Runner(gymnasium.Env[Any, Any]):
    """A square in a corridor of ten places: action 5 moves it to the right, 4 to the left, and a
    random wind moves it now and then. The right end ends the episode, with reward 1.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # as Gymnasium has it

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.action_space = Discrete(2, start=4)
        self.observation_space = Dict({"place": Discrete(10)})
        self.place = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(5))
        return {"place": self.place}, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        wind = int(self.wind() < 0.3)
        self.place = max(self.place + (2 * int(action) - 9) + wind, 0)
        over = self.place >= 9
        self.place = min(self.place, 9)
        return {"place": self.place}, float(over), over, False, {}

    def wind(self) -> float:
        return float(self.np_random.random())

    def render(self) -> Any:
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        image[8:12, 2 * self.place : 2 * self.place + 2] = (255, 128, 0)
        return image


class Wild(Runner):
    """Its wind has a generator of its own, which no seed reaches."""

    generator = np.random.default_rng(0)

    def wind(self) -> float:
        return float(self.generator.random())


class Text(Runner):
    """It renders text alone."""

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012


class Gray(Runner):
    """It renders no colour."""

    def render(self) -> NDArray[np.uint8]:
        return np.zeros((SIDE, SIDE), np.uint8)


class Broken(Runner):
    """Its reward is NaN."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, _, *rest = super().step(action)
        return observation, float("nan"), *rest


class Table(Runner):
    """Its actions are a table of numbers."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = Box(-1, 1, (2, 2), np.float32)


for game in (Runner, Wild, Text, Gray, Broken, Table):
    gymnasium.register(f"own/{game.__name__}-v0", f"{__name__}:{game.__name__}")
