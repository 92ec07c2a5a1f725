"""Meta-World v3's manipulation tasks, rendered: "metaworld/drawer-open" is `drawer-open-v3`.

As ViSaRL plays them (Liang et al. 2024, sec. III): 64x64 RGB of one fixed camera, object and goal
sampled for every episode from their whole ranges, truncated after 500 steps, never terminated. An
episode succeeds if any of its steps does: doors swing past their goal.

Faults of metaworld are corrected here (tests/datasets/test_metaworld.py shows each). It ignores
`reset(seed=)`, and its 50 fixed layouts are not the continuous ranges: a generator of our own
samples them. After its reset, bodies and sites are still at the last episode's positions, in the
image and in the first state: kinematics are computed again. Its `corner` cameras are upside down.
Of several renderers in a process, one shows the other's shapes: a process has one for each scene.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from numpy.typing import NDArray

from datasets.canvas import Canvas, rendering
from datasets.checked import Checked, Count, Range, Side
from datasets.errors import FoveaError, UnstableError

with rendering():
    import mujoco
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE as TASKS

Observation = NDArray[np.uint8]

FRAME_INFO = ("state", "points", "success")
ACTIONS, OPTIONS, GAME_OPTIONS = "continuous", ("view", "render", "camera"), ()
POINTS = ("tip", "object", "goal")  # the rows of info["points"]
NAME = "{}-v3-goal-observable"  # of a task in metaworld's table
UNSTABLE = [  # MuJoCo's warnings after which it resets itself, or ignores a control
    int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{what}"))
    for what in ("QPOS", "QVEL", "QACC", "CTRL")
]
Camera = Literal[
    "corner", "corner2", "corner3", "corner4", "topview", "behindGripper", "gripperPOV"
]
CAMERAS: tuple[str, ...] = get_args(Camera)
THREADS = "LP_NUM_THREADS"  # Mesa's number of threads, where no GPU renders


@dataclass(frozen=True)
class Config(Checked):
    """How a task is played and rendered; the defaults are ViSaRL's.

    `view: reference` is the buffer as the authors' code reads it, a mirror image; `upright` is not.
    `render: full` has shadows and reflections too, and is ten to sixteen times slower on a CPU.
    """

    game: str  # as games() spells it
    num_envs: Count = 1
    life_loss_ends: bool = False  # there are no lives
    images: bool = True  # else all images are black, and steps fifteen times faster
    view: Literal["reference", "upright"] = "reference"
    render: Literal["fast", "full"] = "fast"
    camera: Camera = "corner"
    height: Side = 64
    width: Side = 64
    horizon: Annotated[int, Range(1, 500)] = 500  # steps before an episode is truncated

    @property
    def label(self) -> str:
        """The environment's name in messages."""
        return f"environment 'metaworld/{self.game}'"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return 3, self.height, self.width

    def rules(self) -> Iterator[str]:
        """The task must be one of Meta-World's."""
        if self.game not in games():
            yield f"game: {self.game!r}, must be one of games('metaworld')"


@cache
def games() -> tuple[str, ...]:
    """All tasks, sorted: "assembly", "basketball", ..."""
    return tuple(sorted(name.removesuffix(NAME.format("")) for name in TASKS))


def single(config: Config, seed: int, index: int) -> MetaWorldTask:
    """The `index`-th task of make(config, seed), alone."""
    return MetaWorldTask(config, (seed, index))


def make(config: Config, seed: int) -> VectorEnv[Any, Any, Any]:
    """`num_envs` tasks side by side, each in a process of its own unless it is the only one.

    The i-th is seeded by (seed, i) alone; reset() takes no seed. Where a step ends an episode, the
    observation is already the next one's first (SAME_STEP), as in `envs/atari.py`. Where a process
    has died, the next call raises FoveaError and ends the others.
    """
    tasks = [partial(single, config, seed, index) for index in range(config.num_envs)]
    if len(tasks) == 1:
        return SyncVectorEnv(tasks, autoreset_mode=AutoresetMode.SAME_STEP)
    return _Processes(tasks, config.label)


def action_space(config: Config) -> gymnasium.Space[NDArray[np.float32]]:
    """The same for all tasks: the hand's movement, and the gripper's force."""
    return gymnasium.spaces.Box(-1, 1, (4,), np.float32)


def preprocessing(config: Config) -> dict[str, Any]:
    """How an image is made (datasets/envs/__init__.py)."""
    skip = 5  # metaworld's own
    return {"colour": "rgb", "frame_skip": skip, "maximum_of": 1, "horizon": config.horizon}


class _Processes(AsyncVectorEnv):
    """Tasks in processes; gymnasium's class raises a bare EOFError where one has died."""

    def __init__(self, tasks: Sequence[Callable[[], MetaWorldTask]], label: str) -> None:
        self._label = label
        # Not forked: a rendering context does not survive that.
        with self._all_alive(), _one_rendering_thread():
            super().__init__(tasks, context="spawn", autoreset_mode=AutoresetMode.SAME_STEP)

    def reset(self, **options: Any) -> Any:
        with self._all_alive():
            return super().reset(**options)

    def step(self, actions: Any) -> Any:
        with self._all_alive():
            return super().step(actions)

    def call(self, name: str, *args: Any, **options: Any) -> Any:
        with self._all_alive():
            return super().call(name, *args, **options)

    @contextmanager
    def _all_alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            self._state = AsyncState.DEFAULT  # else close() waits for an answer that never comes
            self.close(terminate=True)
            raise FoveaError(
                f"{self._label}: one of its {self.num_envs} processes died, killed or out of "
                "memory; run it again"
            ) from error


@contextmanager
def _one_rendering_thread() -> Iterator[None]:
    """Have Mesa render in one thread in each process that begins meanwhile, not in one a core."""
    before = os.environ.get(THREADS)
    os.environ.setdefault(THREADS, "0")
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS]


class MetaWorldTask(gymnasium.Env[Observation, NDArray[np.float32]]):
    """One task; actions (4,) in [-1, 1]: the hand's movement, and the gripper's force.

    `info` belongs to the observation beside it: state (39,) float64, the task's own observation
    with the goal in it; points (3, 2) float32, the positions of tip, object and goal in the image
    as (x, y) in pixels, hidden or not; success, of the last step; game_over. At an episode's end it
    also has game_return, game_length and game_success, true if any of its steps succeeded.
    """

    def __init__(self, config: Config, seed: int | Sequence[int] = 0) -> None:
        """Compile the task's model; the first episode starts with reset()."""
        self._config, self._label = config, config.label
        tasks: dict[str, Any] = TASKS
        self._task = tasks[NAME.format(config.game)](seed=0)
        self._task._freeze_rand_vec = False
        self._task.seeded_rand_vec = True
        self._task.max_path_length = config.horizon
        self._task.np_random = np.random.default_rng(seed)
        self._camera = self._task.model.camera(config.camera).id
        self._first_rng: dict[str, Any] = {}  # the generator's state before this episode
        self._actions: list[NDArray[np.float32]] = []  # of this episode
        self._return, self._success, self._succeeds = 0.0, False, False
        self.action_space = action_space(config)
        shape = (config.height, config.width, 3)
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new episode; object and goal are sampled again."""
        if seed is not None:
            self._task.np_random = np.random.default_rng(seed)
        self._first_rng = self._task.np_random.bit_generator.state
        self._task.reset()
        mujoco.mj_forward(self._task.model, self._task.data)
        self._task._prev_obs = self._task._get_curr_obs_combined_no_goal()
        self._state = self._task._get_obs()
        self._actions, self._return = [], 0.0
        self._success = self._succeeds = False
        self._check_stable()
        return self.observe()

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One action for five steps of the simulation, 0.0125 s.

        Raises FoveaError for an action that is not finite, and UnstableError for an unstable
        simulation, which MuJoCo would reset in the middle of the episode.
        """
        reward, truncated = self._advance(np.array(action, np.float32))
        image, info = self.observe()
        if truncated:
            info |= self._over()
        return image, reward, False, truncated, info

    def _over(self) -> dict[str, Any]:
        """The entries that info has at an episode's end only."""
        info = {"game_over": True, "game_return": self._return}
        return info | {"game_length": len(self._actions), "game_success": self._success}

    def _advance(self, action: NDArray[np.float32]) -> tuple[float, bool]:
        self._actions.append(action)
        if not np.isfinite(action).all():
            raise FoveaError(
                f"{self._label}: the action at step {len(self._actions)}, {action.tolist()}, "
                "is not finite: the policy has diverged; train it again, at a lower learning rate"
            )
        self._state, reward, _, truncated, info = self._task.step(action)
        self._check_stable()
        self._succeeds = bool(info["success"])
        self._success |= self._succeeds
        self._return += float(reward)
        return float(reward), bool(truncated)

    def _check_stable(self) -> None:
        """Raise UnstableError after a warning; MuJoCo's counts begin at 0 after each reset."""
        if self._task.data.warning.number[UNSTABLE].any():
            raise UnstableError(
                f"{self._label}: the simulation became unstable at step {len(self._actions)} "
                "of an episode (MUJOCO_LOG.TXT says where) and would do so again; try another "
                "`seed` of the entry, if it has one",
                self._over(),
            )

    def observe(self) -> tuple[Observation, dict[str, Any]]:
        """The current observation and info again, as a run needs them after set_state()."""
        config, task = self._config, self._task
        info = {"state": self._state.copy(), "success": self._succeeds, "game_over": False}
        info["points"] = self._project(
            np.stack([task.tcp_center, task._get_pos_objects()[:3], task._target_pos])
        )
        if config.images:
            return self.image(), info
        return np.zeros((config.height, config.width, 3), np.uint8), info

    def image(self) -> Observation:
        """The current image (H, W, 3), also where steps are not rendered."""
        config, task = self._config, self._task
        for site in task._target_site_config:  # a simulation step moves them back
            task._set_pos_site(*site)
        try:
            image = _canvas(task, config).render(task.model, task.data, self._camera)
        except mujoco.FatalError as error:
            raise FoveaError(
                f"{config.label}: cannot be rendered ({error}); run it again"
            ) from error
        if config.view == "upright":
            upside_down = config.camera.startswith("corner")
            image = image[:, ::-1] if upside_down else image[::-1]
        return image.copy()  # the canvas is rendered to again

    def _project(self, points: NDArray[np.float64]) -> NDArray[np.float32]:
        """World positions (K, 3) -> (K, 2), (x, y) in the image from its upper left corner; NaN
        behind the camera.
        """
        config, model, data = self._config, self._task.model, self._task.data
        rotated = (points - data.cam_xpos[self._camera]) @ data.cam_xmat[self._camera].reshape(3, 3)
        focus = config.height / 2 / np.tan(np.radians(model.cam_fovy[self._camera]) / 2)
        depth = np.where(rotated[:, 2:] < 0, -rotated[:, 2:], np.nan)
        x, y = (rotated[:, :2] / depth * focus).T
        if config.view == "upright" and config.camera.startswith("corner"):
            x = -x  # the buffer's rows go upwards, so y is right already
        elif config.view == "upright":
            y = -y
        return np.stack([config.width / 2 + x, config.height / 2 + y], 1).astype(np.float32)

    def get_state(self) -> dict[str, Any]:
        """All that the rest of the run depends on: the generator's state, and the actions."""
        actions = np.array(self._actions, np.float32).reshape(-1, 4)
        return {"rng": self._first_rng, "actions": actions}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on exactly from where get_state() was called, by playing the episode again."""
        self._task.np_random.bit_generator.state = dict(state["rng"])
        self.reset()
        for action in state["actions"]:
            self._advance(np.array(action, np.float32))

    def close(self) -> None:
        """Close nothing: the process's canvas stays open for other tasks."""


_CANVASES: dict[tuple[object, ...], Canvas] = {}


def _canvas(task: Any, config: Config) -> Canvas:
    """This process's canvas for a scene: tasks of one kind share its shapes."""
    key = os.getpid(), task.model_name, config.render, config.height, config.width
    if key not in _CANVASES:
        _CANVASES[key] = Canvas(task.model, config.render, config.height, config.width)
    return _CANVASES[key]
