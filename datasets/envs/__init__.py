"""Environments by name: "atari/Frostbite" is the game Frostbite of the suite in atari.py.

A name may also stand for several games, for frames: "atari/{Asteroids,Assault,MsPacman}". members()
lists them.

A suite's file exports `Config`, `games()`, `single(config, seed, index)` (one environment),
`make(config, seed)` (a vector of them), `action_space(config)`, `FRAME_INFO` (the info entries
stored with each frame), `ACTIONS` ("discrete" or "continuous"; None where the game decides),
`OPTIONS` and `GAME_OPTIONS`. These are the keys of its Config for how images are rendered, and for
another form of a game. A name may set them, as in "metaworld/reach?view=upright&camera=corner2" and
"atari/Breakout?infinite=true". A Config has `image_shape`, (C, H, W).
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.spaces import Discrete, Space
from gymnasium.vector import VectorEnv

from datasets.errors import FoveaError


def check(name: str) -> None:
    """Raise FoveaError, with similar names, unless `name` is that of an environment."""
    _find(name)


def members(name: str) -> list[str]:
    """The environments that a name stands for: "atari/{A,B}?screen=gray84" is A and B, both with
    that screen; a name without braces stands for itself.

    Raises FoveaError for an unknown one, with similar names; for a game named twice; and where the
    images are not all of one shape.
    """
    start, brace, rest = name.partition("{")
    inner, closing, end = rest.partition("}")
    if not brace:
        check(name)
        return [name]
    games = [game.strip() for game in inner.split(",")]
    if not closing or len(set(games)) < len(games):
        raise FoveaError(
            f"environment {name!r}: write <suite>/{{<game>,<game>}}, each game once, such as "
            "atari/{Asteroids,Assault,MsPacman}"
        )
    environments = [f"{start}{game}{end}" for game in games]
    shapes = {one: _find(one)[1].image_shape for one in environments}
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{one} has {shape}" for one, shape in shapes.items())
        raise FoveaError(f"environment {name!r}: images must be of one shape; {sizes}")
    return environments


def games(suite: str = "atari") -> list[str]:
    """The names of a suite's games, sorted: "Adventure", "AirRaid", ..."""
    return list(_suite(suite).games())


def make(
    name: str, *, num_envs: int, seed: int, life_loss_ends: bool = False, images: bool = True
) -> VectorEnv[Any, Any, Any]:
    """`num_envs` environments side by side, the i-th seeded by (seed, i) alone.

    Where a step ends an episode the observation is the next one's first (SAME_STEP). Call reset()
    without a seed: gymnasium's would replace this one. Without `images` they are all black, which
    is faster; nothing else changes.
    """
    suite, config = _find(name, num_envs=num_envs, life_loss_ends=life_loss_ends, images=images)
    vector: VectorEnv[Any, Any, Any] = suite.make(config, seed)
    return vector


def single(name: str, *, seed: int, index: int, images: bool = True) -> gymnasium.Env[Any, Any]:
    """The `index`-th environment of make(name, seed=seed), alone, which is a tenth faster."""
    suite, config = _find(name, images=images)
    env: gymnasium.Env[Any, Any] = suite.single(config, seed, index)
    return env


def frame_info(name: str) -> tuple[str, ...]:
    """The entries of `info` that belong to a frame: ("lives", "ram") on Atari."""
    return tuple(_find(members(name)[0])[0].FRAME_INFO)


def actions(name: str) -> str:
    """The kind of an environment's actions: "discrete" or "continuous"."""
    suite, config = _find(members(name)[0])
    if suite.ACTIONS is None:
        return "discrete" if isinstance(suite.action_space(config), Discrete) else "continuous"
    return str(suite.ACTIONS)


def action_space(name: str) -> Space[Any]:
    """The space of an environment's actions, without starting it."""
    suite, config = _find(name)
    space: Space[Any] = suite.action_space(config)
    return space


def action_set(name: str) -> object:
    """What an environment's actions do, for comparison: an Atari game's are the emulator's numbers,
    of others the space.
    """
    has_numbers = hasattr(_find(name)[0], "emulator_actions")
    return emulator_actions(name) if has_numbers else action_space(name)


def emulator_actions(name: str) -> tuple[int, ...]:
    """The emulator's number of each action of an Atari game, by the action's index."""
    suite, config = _find(name)
    return tuple(suite.emulator_actions(config))


def image_shape(name: str) -> tuple[int, int, int]:
    """(C, H, W) of an environment's images, without starting it."""
    shape: tuple[int, int, int] = _find(members(name)[0])[1].image_shape
    return shape


def rendering(name: str) -> dict[str, str]:
    """The suite and its options of rendering, with defaults: {"suite": …, "view": …}."""
    suite, config = _find(members(name)[0])
    return {"suite": name.partition("/")[0]} | {key: getattr(config, key) for key in suite.OPTIONS}


def _find(name: str, **settings: Any) -> tuple[ModuleType, Any]:
    """The suite's module, and the Config that the name and `settings` make."""
    path, _, query = name.partition("?")
    suite_name, _, game = path.partition("/")
    if not game:
        raise FoveaError(f"environment {name!r}: write <suite>/<game>, such as atari/Frostbite")
    suite = _suite(suite_name)
    if "{" in game:
        raise FoveaError(f"environment {name!r}: must be one game, not several")
    if game not in suite.games():
        near = _near(game, suite.games())
        raise FoveaError(f"environment {name!r}: {suite_name} has no such game{near}")
    options = dict(option.partition("=")[::2] for option in query.split("&") if option)
    names = (*suite.OPTIONS, *suite.GAME_OPTIONS)
    if unknown := sorted(set(options) - set(names)):
        known = ", ".join(names) or "none"
        raise FoveaError(
            f"environment {name!r}: no option {unknown[0]!r}; {suite_name} has {known}"
        )
    try:
        return suite, suite.Config(game, **options, **settings)
    except ValueError as error:
        raise FoveaError(f"environment {name!r}: {error}") from error


def _suite(name: str) -> ModuleType:
    suites = [m.name for m in pkgutil.iter_modules(__path__) if m.name.isidentifier()]
    if name not in suites:
        known = ", ".join(suites)
        raise FoveaError(f"environment suite {name!r}: unknown; the suites are: {known}")
    return importlib.import_module(f"{__name__}.{name}")


def _near(game: str, known: Iterable[str]) -> str:
    lower = {name.lower(): name for name in known}
    hits = difflib.get_close_matches(game.lower().replace("_", ""), lower, n=3)
    return f"; did you mean {' or '.join(lower[hit] for hit in hits)}?" if hits else ""
