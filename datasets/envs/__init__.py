"""Environments by name: "atari/Frostbite" is the game Frostbite of the suite in atari.py.

A name may also stand for several games, for frames: "atari/{Asteroids,Assault,MsPacman}". members()
lists them.

A suite's file exports `Config`, `games()`, `single(config, seed, index)` (one environment),
`make(config, seed)` (a vector of them), `action_space(config)`, `FRAME_INFO` (the info entries
stored with each frame), `ACTIONS` ("discrete" or "continuous"; None where the game decides),
`OPTIONS` and `GAME_OPTIONS`. These are the keys of its Config for how images are rendered, and for
another form of a game. A name may set them, as in "metaworld/reach?view=upright&camera=corner2" and
"atari/Breakout?infinite=true". A Config has `image_shape`, (C, H, W).

`preprocessing(config)` states how an image is made, in JSON's types, so that it can be made
elsewhere. Its keys are those of PREPROCESSING; what a suite does not do is None.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.spaces import Discrete, Space
from gymnasium.vector import VectorEnv

from datasets.errors import FoveaError

PREPROCESSING = (
    "colour",  # "rgb", or "luma", OpenCV's
    "frame_skip",  # simulator frames of the same action a step; None: the environment's own
    # The last frames of a step under the pixelwise maximum; 1: the last alone, as after the no-ops.
    "maximum_of",
    "resize",  # OpenCV's interpolation; None: the renderer's own size
    "options",  # those of rendering, such as screen, view and camera
    "noops",  # [least, most] simulator frames without action before an episode
    "at_start",  # actions taken for the agent at an episode's start, a step each
    "after_lost_life",
    "horizon",  # steps before an episode is truncated
)


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


def preprocessing(name: str) -> dict[str, Any]:
    """How an environment's images are made: PREPROCESSING, and `env`, `shape` (C, H, W), `dtype`.

    Where the games that a name stands for differ, the value is a mapping from each to its own.
    """
    each = {one: _preprocessing(one) for one in members(name)}
    first = next(iter(each.values()))
    same = {key: all(one[key] == value for one in each.values()) for key, value in first.items()}
    return {"env": name, "shape": list(image_shape(name)), "dtype": "uint8"} | {
        key: value if same[key] else {one: values[key] for one, values in each.items()}
        for key, value in first.items()
    }


def _preprocessing(name: str) -> dict[str, Any]:
    suite, config = _find(name)
    stated: dict[str, Any] = suite.preprocessing(config)
    options = {key: getattr(config, key) for key in (*suite.OPTIONS, *suite.GAME_OPTIONS)}
    return {key: None for key in PREPROCESSING} | {"options": options} | stated


def _find(name: str, **settings: Any) -> tuple[ModuleType, Any]:
    """The suite's module, and the Config that the name and `settings` make."""
    path, _, query = name.partition("?")
    suite_name, _, game = path.partition("/")
    if not game:
        hint = _anywhere(path) or ", such as atari/Frostbite"
        raise FoveaError(f"environment {name!r}: write <suite>/<game>{hint}")
    if suite_name not in _suites():
        known = ", ".join(_suites())
        raise FoveaError(
            f"environment suite {suite_name!r}: unknown; the suites are: {known}{_anywhere(game)}"
        )
    suite = _suite(suite_name)
    if "{" in game:
        raise FoveaError(f"environment {name!r}: must be one game, not several")
    if game not in suite.games():
        near = _near(game, {one: one for one in suite.games()})
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


def _suites() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(__path__) if m.name.isidentifier()]


def _suite(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def _anywhere(game: str) -> str:
    """A hint at similar games of all suites."""
    suites = {one: suite for suite in _suites() for one in _suite(suite).games()}
    return _near(game, {f"{suite}/{one}": one for one, suite in suites.items()})


def _near(game: str, known: Mapping[str, str]) -> str:
    """A hint at those of `known`, names to games, that are alike, if need be without Gymnasium's
    suffixes.
    """
    names = {one.lower(): name for name, one in known.items()}
    game = game.lower().replace("_", "")
    plain = re.sub("(noframeskip|deterministic|-ram)?(-v[0-9]+)?$", "", game)
    same = [one for one in (plain, game) if one in names][:1]
    hits = same or difflib.get_close_matches(game, names, n=3)
    return f"; did you mean {' or '.join(names[hit] for hit in hits)}?" if hits else ""
