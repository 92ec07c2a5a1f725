"""Any Gymnasium environment, by its id: "gym/Reacher-v5", "gym/my_package:MyGame-v0".

It must render (`rgb_array`) and have discrete actions, or continuous ones (A,) within -1 and 1;
others are refused by name. As for gymnasium.make, `my_package:` is a module to import first, which
registers the environment. The observation is the rendered image, resized to height x width (by area
where it shrinks, and without regard to its proportions). MuJoCo's own environments render at that
size. The environment's own observation is not stored.

Gymnasium has no way to save an environment. So each episode is reset with a seed of its own, and a
state is that seed and the actions since. set_state() plays them again, and compares a digest of the
environment's own observations and rewards. An environment that is not deterministic is refused
there, by name; until a run is interrupted it trains and collects all the same.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any

import cv2
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, Space, flatten
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from datasets.checked import Checked, Count, Range
from datasets.errors import FoveaError, brief
from datasets.resized import RESIZE, odd_sides, resized

Observation = NDArray[np.uint8]

FRAME_INFO: tuple[str, ...] = ()
ACTIONS, OPTIONS, GAME_OPTIONS = None, ("height", "width"), ()  # each id has its own actions
MUJOCO = "gymnasium.envs.mujoco"  # environments that take the size of their images
REPLACED = ("GymV21Environment-v0", "GymV26Environment-v0")  # templates without a game


class Games(tuple[str, ...]):
    """The registered ids, sorted. A `module:id` is in it if the module registers that id."""

    def __contains__(self, game: object) -> bool:
        module, colon, name = str(game).partition(":")
        if not colon:
            return super().__contains__(game)
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise FoveaError(
                f"environment 'gym/{game}': the module {module} cannot be imported "
                f"({brief(error)}); install it, or put its file into this folder"
            ) from error
        return name in games()


@dataclass(frozen=True)
class Config(Checked):
    """How an environment is played and rendered."""

    game: str  # the id
    num_envs: Count = 1
    life_loss_ends: bool = False  # there are no lives
    images: bool = True  # else all images are black
    height: str = "96"  # pixels, as the name of the environment has them
    width: str = "96"
    # Steps before an episode is truncated; the environment may have a lower limit of its own.
    horizon: Annotated[int, Range(1, 27_000)] = 27_000

    @property
    def label(self) -> str:
        """The environment's name in messages."""
        return f"environment 'gym/{self.game}'"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return 3, int(self.height), int(self.width)

    def rules(self) -> Iterator[str]:
        """The sides of the image are numbers; the environment must render and have known actions.

        It is constructed for that, once in a process, but not rendered.
        """
        yield from odd_sides(self.height, self.width)
        if self.game not in games():
            yield f"game: {self.game!r}, must be registered in Gymnasium"
        elif mistake := _mistake(self.game):
            yield mistake


def games() -> Games:
    """All ids that are registered now, sorted: "Acrobot-v1", "Ant-v2", ..."""
    return Games(sorted(set(gymnasium.registry) - set(REPLACED)))


def single(config: Config, seed: int, index: int) -> GymGame:
    """The `index`-th environment of make(config, seed), alone."""
    return GymGame(config, (seed, index))


def make(config: Config, seed: int) -> VectorEnv[Any, Any, Any]:
    """`num_envs` environments side by side, the i-th seeded by (seed, i) alone; reset() takes no
    seed.

    Where a step ends an episode, the observation is already the next one's first (SAME_STEP), as in
    `envs/atari.py`.
    """
    return SyncVectorEnv(
        [partial(single, config, seed, index) for index in range(config.num_envs)],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )


def action_space(config: Config) -> Space[Any]:
    """Discrete from 0, or continuous (A,) within -1 and 1."""
    own = _own_actions(config.game)
    if isinstance(own, Discrete):
        return Discrete(int(own.n))
    return Box(-1, 1, own.shape, np.float32)


def preprocessing(config: Config) -> dict[str, Any]:
    """How an image is made (datasets/envs/__init__.py)."""
    return {"colour": "rgb", "maximum_of": 1, "resize": RESIZE, "horizon": config.horizon}


class GymGame(gymnasium.Env[Observation, Any]):
    """One environment; `info` has game_over, and at an episode's end game_return, the sum of its
    rewards, and game_length, its steps.
    """

    def __init__(self, config: Config, seed: int | Sequence[int] = 0) -> None:
        """Construct the environment; the first episode starts with reset()."""
        cv2.setNumThreads(1)  # more threads make so small a resize slower
        self._config, self._label = config, config.label
        _, height, width = config.image_shape
        self._shape = height, width, 3
        self._env = _construct(config.game, height, width)
        self._own = self._env.action_space
        self._rng = np.random.default_rng(seed)
        self._seed = 0  # this episode's
        self._actions: list[Any] = []  # of this episode
        self._return = 0.0
        self._observation: Any = None  # the environment's own
        self._steps = hashlib.sha256()  # of this episode
        self.action_space = action_space(config)
        self.observation_space = Box(0, 255, self._shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new episode, with the next seed of this environment's generator."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._begin(int(self._rng.integers(2**31)))
        return self.observe()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One step. Raises FoveaError for an action or a reward that is NaN or infinite."""
        reward, terminated, truncated = self._advance(action)
        image, info = self.observe()
        if terminated or truncated:
            info |= {"game_over": True, "game_return": self._return}
            info["game_length"] = len(self._actions)
        return image, reward, terminated, truncated, info

    def observe(self) -> tuple[Observation, dict[str, Any]]:
        """The current observation and info again, as a run needs them after set_state()."""
        image = self._image() if self._config.images else np.zeros(self._shape, np.uint8)
        return image, {"game_over": False}

    def get_state(self) -> dict[str, Any]:
        """What set_state() needs: the generator's state, the episode's seed, actions and digest."""
        space = self.action_space
        return {
            "rng": self._rng.bit_generator.state,
            "seed": self._seed,
            "actions": np.array(self._actions, space.dtype).reshape(-1, *(space.shape or ())),
            "digest": self._steps.hexdigest(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where get_state() was called, by playing the episode again.

        Raises FoveaError where that gives other observations or rewards.
        """
        self._rng.bit_generator.state = dict(state["rng"])
        self._begin(int(state["seed"]))
        for action in state["actions"]:
            self._advance(action)
        if self._steps.hexdigest() != state["digest"]:
            raise FoveaError(
                f"{self._label}: cannot be resumed: the same seed and the same "
                f"{len(self._actions)} actions gave other observations or rewards, so it is not "
                "deterministic; delete artifacts/.work to start the stage again, and let it run to "
                "its end"
            )

    def close(self) -> None:
        """Free the environment and its renderer."""
        self._env.close()

    def _begin(self, seed: int) -> None:
        self._seed, self._actions, self._return = seed, [], 0.0
        self._observation, _ = self._env.reset(seed=seed)
        self._steps = hashlib.sha256()
        self._record()

    def _advance(self, action: Any) -> tuple[float, bool, bool]:
        if isinstance(self._own, Discrete):
            action = int(action)
            own: Any = int(self._own.start) + action
        else:
            action = np.array(action, np.float32)
            own = action.astype(self._own.dtype)
        self._actions.append(action)
        if not np.isfinite(action).all():
            raise FoveaError(
                f"{self._label}: the action at step {len(self._actions)}, {action.tolist()}, "
                "is not finite: the policy has diverged; train it again, at a lower learning rate"
            )
        self._observation, reward, terminated, truncated, _ = self._env.step(own)
        if not math.isfinite(reward):
            raise FoveaError(
                f"{self._label}: the reward at step {len(self._actions)} of an episode is "
                f"{reward}, must be finite; correct the environment"
            )
        self._return += float(reward)
        self._record(float(reward))
        ends = len(self._actions) >= self._config.horizon and not terminated
        return float(reward), bool(terminated), bool(truncated) or ends

    def _image(self) -> Observation:
        """The rendered image (H, W, 3). Raises FoveaError where there is none."""
        try:
            image: Any = self._env.render()
        except Exception as error:  # each library has a kind of its own
            raise FoveaError(
                f"{self._label}: cannot be rendered ({type(error).__name__}: {brief(error)}); "
                "install what that names"
            ) from error
        whole = isinstance(image, np.ndarray) and image.dtype == np.uint8
        if not whole or image.ndim != 3 or image.shape[2] != 3:
            kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image)
            raise FoveaError(
                f"{self._label}: renders {kind}, must be one image (H, W, 3) uint8; correct its "
                "render()"
            )
        height, width, _ = self._shape
        return resized(image, height, width)

    def _record(self, *numbers: Any) -> None:
        """Add a step to the episode's digest: the environment's own observation, if it is of
        numbers, and the reward.
        """
        space = self._env.observation_space
        own = [flatten(space, self._observation)] if space.is_np_flattenable else []
        for array in map(np.asarray, (*own, *numbers)):
            self._steps.update(array.tobytes())


def _construct(game: str, height: int, width: int) -> gymnasium.Env[Any, Any]:
    """The environment as gymnasium.make() makes it, without its checks of spaces."""
    size: dict[str, Any] = {}
    module, _, name = game.rpartition(":")
    if module:
        importlib.import_module(module)  # gymnasium.spec() does not
    if str(gymnasium.spec(name).entry_point).startswith(MUJOCO):
        size = {"height": height, "width": width}
    env = gymnasium.make(name, render_mode="rgb_array", disable_env_checker=True, **size)
    if MUJOCO in sys.modules:  # it, or one that it wraps, may be of MuJoCo
        _choose_renderer()
    return env


def _choose_renderer() -> None:
    """Have Gymnasium's MuJoCo environments render as Meta-World does: by EGL, or else OSMesa."""
    if "MUJOCO_GL" not in os.environ:
        from datasets.canvas import gl_context  # imports mujoco, which other environments need not

        os.environ["MUJOCO_GL"] = gl_context().__module__.rpartition(".")[2]


@cache
def _own_actions(game: str) -> Space[Any]:
    """The actions of an environment, which is constructed for that; FoveaError if it cannot be."""
    try:
        env = _construct(game, 1, 1)
    except Exception as error:  # of the environment's own kind
        raise FoveaError(
            f"cannot be made with render_mode='rgb_array' ({type(error).__name__}: {brief(error)})"
        ) from error
    space, renders = env.action_space, env.render_mode == "rgb_array"
    env.close()
    if not renders or "rgb_array" not in env.metadata.get("render_modes", ()):
        raise FoveaError("has no render mode 'rgb_array', of which images are made; add one to it")
    return space


def _mistake(game: str) -> str | None:
    """Why an environment is refused."""
    try:
        space = _own_actions(game)
    except FoveaError as error:
        return str(error)
    if isinstance(space, Discrete):
        return None
    advice = "register it with a wrapper that makes them so"
    if isinstance(space, Box) and len(space.shape) == 1:
        if (space.low == -1).all() and (space.high == 1).all():
            return None
        advice = "register it wrapped in gymnasium.wrappers.RescaleAction(env, -1.0, 1.0)"
    return f"its actions are {space}, must be Discrete, or a Box (A,) from -1 to 1; {advice}"
