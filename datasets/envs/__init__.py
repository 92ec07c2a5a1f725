"""Environments by word: "atari/Frostbite" is the game Frostbite of the suite in atari.py.

A suite's file exports `Config`, `games()`, `single(config, seed, index)` (one environment),
`make(config, seed)` (a vector of them) and `FRAME_INFO` (the info entries kept with each frame).
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from datasets.errors import FoveaError


def check(word: str) -> None:
    """Raise FoveaError, with near misses, unless `word` names an environment we have."""
    _find(word)


def games(suite: str = "atari") -> list[str]:
    """The names of a suite's games, sorted: "Adventure", "AirRaid", ..."""
    return list(_suite(suite).games())


def make(
    word: str, *, num_envs: int, seed: int, life_loss_ends: bool = False
) -> VectorEnv[Any, Any, Any]:
    """`num_envs` environments side by side, the i-th seeded by (seed, i) alone.

    Where a step ends an episode the observation is the next one's first (SAME_STEP). Call reset()
    without a seed: gymnasium's would replace this one.
    """
    suite, game = _find(word)
    config = suite.Config(game, num_envs=num_envs, life_loss_ends=life_loss_ends)
    vector: VectorEnv[Any, Any, Any] = suite.make(config, seed)
    return vector


def single(word: str, *, seed: int, index: int) -> gymnasium.Env[Any, Any]:
    """The `index`-th environment of make(word, seed=seed), alone, which is a tenth faster."""
    suite, game = _find(word)
    env: gymnasium.Env[Any, Any] = suite.single(suite.Config(game), seed, index)
    return env


def frame_info(word: str) -> tuple[str, ...]:
    """The entries of `info` that belong to a frame: ("lives", "ram") on Atari."""
    return tuple(_find(word)[0].FRAME_INFO)


def image_shape(word: str) -> tuple[int, int, int]:
    """(3, H, W) of the images an environment shows, without starting it."""
    suite, game = _find(word)
    config = suite.Config(game)
    return 3, config.height, config.width


def _find(word: str) -> tuple[ModuleType, str]:
    name, _, game = word.partition("/")
    if not game:
        raise FoveaError(f"environment {word!r}: write <suite>/<game>, such as atari/Frostbite")
    suite = _suite(name)
    if game not in suite.games():
        near = _near(game, suite.games())
        raise FoveaError(f"environment {word!r}: {name} has no such game{near}")
    return suite, game


def _suite(name: str) -> ModuleType:
    suites = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in suites:
        known = ", ".join(suites)
        raise FoveaError(f"environment suite {name!r}: there is none; the suites are: {known}")
    return importlib.import_module(f"{__name__}.{name}")


def _near(game: str, known: Iterable[str]) -> str:
    lower = {name.lower(): name for name in known}
    hits = difflib.get_close_matches(game.lower().replace("_", ""), lower, n=3)
    return f"; did you mean {' or '.join(lower[hit] for hit in hits)}?" if hits else ""
