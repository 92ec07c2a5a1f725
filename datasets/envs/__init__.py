"""Environments by word: "atari/Frostbite" is the game Frostbite of the suite in atari.py.

Several games of a suite are one word too, for frames: "atari/{Asteroids,Assault,MsPacman}", which
members() spells out.

A suite's file exports `Config`, `games()`, `single(config, seed, index)` (one environment),
`make(config, seed)` (a vector of them), `action_space(config)`, `FRAME_INFO` (the info entries kept
with each frame), `ACTIONS` ("discrete" or "continuous") and `OPTIONS`: the keys of its Config that
say what is shown and that a word may give, as in "metaworld/reach?view=upright&camera=corner2". A
Config has `image_shape`, (C, H, W).
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.spaces import Space
from gymnasium.vector import VectorEnv

from datasets.errors import FoveaError


def check(word: str) -> None:
    """Raise FoveaError, with near misses, unless `word` names an environment we have."""
    _find(word)


def members(word: str) -> list[str]:
    """The environments that a word names: "atari/{A,B}?screen=gray84" -> "atari/A?screen=gray84",
    "atari/B?screen=gray84"; any other word is its own only member.

    Raises FoveaError, with near misses, for one that we don't have, for a game named twice, and
    where the images are not all of one shape.
    """
    start, brace, rest = word.partition("{")
    listed, closing, end = rest.partition("}")
    if not brace:
        check(word)
        return [word]
    names = [name.strip() for name in listed.split(",")]
    if not closing or len(set(names)) < len(names):
        raise FoveaError(
            f"environment {word!r}: write <suite>/{{<game>,<game>}}, each game once, such as "
            "atari/{Asteroids,Assault,MsPacman}"
        )
    each = [f"{start}{name}{end}" for name in names]
    shapes = {one: _find(one)[1].image_shape for one in each}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{one} shows {shape}" for one, shape in shapes.items())
        raise FoveaError(f"environment {word!r}: images must be of one shape; {told}")
    return each


def games(suite: str = "atari") -> list[str]:
    """The names of a suite's games, sorted: "Adventure", "AirRaid", ..."""
    return list(_suite(suite).games())


def make(
    word: str, *, num_envs: int, seed: int, life_loss_ends: bool = False, draw: bool = True
) -> VectorEnv[Any, Any, Any]:
    """`num_envs` environments side by side, the i-th seeded by (seed, i) alone.

    Where a step ends an episode the observation is the next one's first (SAME_STEP). Call reset()
    without a seed: gymnasium's would replace this one. Without `draw` all images are black, which
    is faster; nothing else changes.
    """
    suite, config = _find(word, num_envs=num_envs, life_loss_ends=life_loss_ends, draw=draw)
    vector: VectorEnv[Any, Any, Any] = suite.make(config, seed)
    return vector


def single(word: str, *, seed: int, index: int, draw: bool = True) -> gymnasium.Env[Any, Any]:
    """The `index`-th environment of make(word, seed=seed), alone, which is a tenth faster."""
    suite, config = _find(word, draw=draw)
    env: gymnasium.Env[Any, Any] = suite.single(config, seed, index)
    return env


def frame_info(word: str) -> tuple[str, ...]:
    """The entries of `info` that belong to a frame: ("lives", "ram") on Atari."""
    return tuple(_find(members(word)[0])[0].FRAME_INFO)


def actions(word: str) -> str:
    """What actions an environment takes: "discrete" or "continuous"."""
    return str(_find(members(word)[0])[0].ACTIONS)


def action_space(word: str) -> Space[Any]:
    """The space of an environment's actions, without starting it."""
    suite, config = _find(word)
    space: Space[Any] = suite.action_space(config)
    return space


def image_shape(word: str) -> tuple[int, int, int]:
    """(C, H, W) of the images an environment shows, without starting it."""
    shape: tuple[int, int, int] = _find(members(word)[0])[1].image_shape
    return shape


def shown(word: str) -> dict[str, str]:
    """The suite and how it shows its games, defaults written out: {"suite": …, "view": …}."""
    suite, config = _find(members(word)[0])
    return {"suite": word.partition("/")[0]} | {key: getattr(config, key) for key in suite.OPTIONS}


def _find(word: str, **settings: Any) -> tuple[ModuleType, Any]:
    """The suite's module, and the Config that the word and `settings` make."""
    path, _, written = word.partition("?")
    name, _, game = path.partition("/")
    if not game:
        raise FoveaError(f"environment {word!r}: write <suite>/<game>, such as atari/Frostbite")
    suite = _suite(name)
    if "{" in game:
        raise FoveaError(f"environment {word!r}: several games, where one is played at a time")
    if game not in suite.games():
        near = _near(game, suite.games())
        raise FoveaError(f"environment {word!r}: {name} has no such game{near}")
    options = dict(option.partition("=")[::2] for option in written.split("&") if option)
    if unknown := sorted(set(options) - set(suite.OPTIONS)):
        known = ", ".join(suite.OPTIONS) or "none"
        raise FoveaError(f"environment {word!r}: no option {unknown[0]!r}; {name} has {known}")
    try:
        return suite, suite.Config(game, **options, **settings)
    except ValueError as error:
        raise FoveaError(f"environment {word!r}: {error}") from error


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
