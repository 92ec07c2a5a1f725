"""Meta-World v3's manipulation tasks, rendered: "metaworld/drawer-open" is `drawer-open-v3`.

As ViSaRL plays them (Liang et al. 2024, sec. III): 64x64 RGB of one fixed camera, object and goal
sampled for every episode from their whole ranges, truncated after 500 steps, never terminated. An
episode succeeds if any of its steps does: doors swing past their goal.

What metaworld itself does is put right here (tests/datasets/test_metaworld.py shows each). Its
`reset(seed=)` is ignored, and its 50 fixed layouts are not the continuous ranges: we sample from a
generator of our own. After its reset, bodies and sites stand where the last episode left them, in
the image and in the first state: kinematics are computed again. Its `corner` cameras stand upside
down, and of several renderers in a process one shows the other's shapes: a process has one a scene.
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

from datasets.canvas import Canvas, drawable
from datasets.checked import Checked, Count, Range, Side
from datasets.errors import FoveaError, UnstableError

with drawable():
    import mujoco
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE as TASKS

Observation = NDArray[np.uint8]

FRAME_INFO = ("state", "points", "success")
ACTIONS, OPTIONS = "continuous", ("view", "render", "camera")
POINTS = ("tip", "object", "goal")  # what the rows of info["points"] are
NAME = "{}-v3-goal-observable"  # of a task in metaworld's table
UNSTABLE = [  # MuJoCo's warnings after which it resets itself, or ignores a control
    int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{what}"))
    for what in ("QPOS", "QVEL", "QACC", "CTRL")
]
Camera = Literal[
    "corner", "corner2", "corner3", "corner4", "topview", "behindGripper", "gripperPOV"
]
CAMERAS: tuple[str, ...] = get_args(Camera)
THREADS = "LP_NUM_THREADS"  # Mesa's, where no GPU renders


@dataclass(frozen=True)
class Config(Checked):
    """How a task is played and rendered; the defaults are ViSaRL's.

    `view` is `reference`, the buffer as the authors' code takes it, a mirror image, or `upright`.
    `render: full` has shadows and reflections too, ten to sixteen times slower on a CPU.
    """

    game: str  # as games() spells it
    num_envs: Count = 1
    life_loss_ends: bool = False  # there are no lives
    draw: bool = True  # or all images are black, and steps fifteen times faster
    view: Literal["reference", "upright"] = "reference"
    render: Literal["fast", "full"] = "fast"
    camera: Camera = "corner"
    height: Side = 64
    width: Side = 64
    horizon: Annotated[int, Range(1, 500)] = 500  # steps before an episode is truncated

    @property
    def label(self) -> str:
        """Its name in messages."""
        return f"environment 'metaworld/{self.game}'"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return 3, self.height, self.width

    def rules(self) -> Iterator[str]:
        """Meta-World has the task."""
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
    has died, whatever is asked next raises FoveaError, and the others are ended.
    """
    tasks = [partial(single, config, seed, index) for index in range(config.num_envs)]
    if len(tasks) == 1:
        return SyncVectorEnv(tasks, autoreset_mode=AutoresetMode.SAME_STEP)
    return _Processes(tasks, config.label)


def action_space(config: Config) -> gymnasium.Space[NDArray[np.float32]]:
    """The same of all tasks: the hand's movement, and the gripper's force."""
    return gymnasium.spaces.Box(-1, 1, (4,), np.float32)


class _Processes(AsyncVectorEnv):
    """Tasks in processes; gymnasium's own has a bare EOFError or BrokenPipeError for a dead one."""

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
            self._state = AsyncState.DEFAULT  # or close() waits for the answer that is not to come
            self.close(terminate=True)
            raise FoveaError(
                f"{self._label}: one of the {self.num_envs} processes it runs in died, killed or "
                "out of memory; run it again"
            ) from error


@contextmanager
def _one_rendering_thread() -> Iterator[None]:
    """In processes that begin meanwhile; in each of them Mesa would render in a thread a core."""
    before = os.environ.get(THREADS)
    os.environ.setdefault(THREADS, "0")
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS]


class MetaWorldTask(gymnasium.Env[Observation, NDArray[np.float32]]):
    """One task; actions (4,) in [-1, 1]: the hand's movement, and the gripper's force.

    `info` goes with the observation beside it: state (39,) float64, the task's own observation with
    the goal in it; points (3, 2) float32, where tip, object and goal are in the image as (x, y) in
    pixels, hidden or not; success, of the step that led here; game_over. Where an episode has ended
    it also has game_return, game_length and game_success, of any of its steps.
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
        self._begun_with: dict[str, Any] = {}  # the generator's state before this episode
        self._actions: list[NDArray[np.float32]] = []  # of this episode
        self._return, self._success, self._succeeds = 0.0, False, False
        self.action_space = action_space(config)
        shape = (config.height, config.width, 3)
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new episode, object and goal sampled anew."""
        if seed is not None:
            self._task.np_random = np.random.default_rng(seed)
        self._begun_with = self._task.np_random.bit_generator.state
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

        Raises FoveaError for an action that is not finite, UnstableError where the simulation is:
        MuJoCo would begin it anew in the middle of the episode and go on.
        """
        reward, truncated = self._advance(np.array(action, np.float32))
        image, info = self.observe()
        if truncated:
            info |= self._over()
        return image, reward, False, truncated, info

    def _over(self) -> dict[str, Any]:
        """What info has besides where the episode has ended."""
        info = {"game_over": True, "game_return": self._return}
        return info | {"game_length": len(self._actions), "game_success": self._success}

    def _advance(self, action: NDArray[np.float32]) -> tuple[float, bool]:
        self._actions.append(action)
        if not np.isfinite(action).all():
            raise FoveaError(
                f"{self._label}: the action at step {len(self._actions)}, {action.tolist()}, "
                "is not finite: what acts has diverged; train it again, at a lower learning rate"
            )
        self._state, reward, _, truncated, info = self._task.step(action)
        self._check_stable()
        self._succeeds = bool(info["success"])
        self._success |= self._succeeds
        self._return += float(reward)
        return float(reward), bool(truncated)

    def _check_stable(self) -> None:
        """MuJoCo counts its warnings anew from each reset, its own too."""
        if self._task.data.warning.number[UNSTABLE].any():
            raise UnstableError(
                f"{self._label}: the simulation became unstable at step {len(self._actions)} "
                "of an episode (MUJOCO_LOG.TXT says where) and would do so again; another `seed` "
                "of the entry, where it has one, goes another way",
                self._over(),
            )

    def observe(self) -> tuple[Observation, dict[str, Any]]:
        """The current observation and info once more, as a run needs them after set_state()."""
        config, task = self._config, self._task
        info = {"state": self._state.copy(), "success": self._succeeds, "game_over": False}
        info["points"] = self._project(
            np.stack([task.tcp_center, task._get_pos_objects()[:3], task._target_pos])
        )
        if config.draw:
            return self.image(), info
        return np.zeros((config.height, config.width, 3), np.uint8), info

    def image(self) -> Observation:
        """The current image (H, W, 3), also where steps are not rendered."""
        config, task = self._config, self._task
        for site in task._target_site_config:  # the simulation puts them back
            task._set_pos_site(*site)
        try:
            image = _canvas(task, config).draw(task.model, task.data, self._camera)
        except mujoco.FatalError as error:
            raise FoveaError(
                f"{config.label}: cannot be rendered ({error}); run it again"
            ) from error
        if config.view == "upright":
            upside_down = config.camera.startswith("corner")
            image = image[:, ::-1] if upside_down else image[::-1]
        return image.copy()  # the canvas is rendered to again

    def _project(self, points: NDArray[np.float64]) -> NDArray[np.float32]:
        """Places (K, 3) in the world to (x, y) in the image, from its upper left corner; NaN for
        what lies behind the camera.
        """
        config, model, data = self._config, self._task.model, self._task.data
        turned = (points - data.cam_xpos[self._camera]) @ data.cam_xmat[self._camera].reshape(3, 3)
        focus = config.height / 2 / np.tan(np.radians(model.cam_fovy[self._camera]) / 2)
        depth = np.where(turned[:, 2:] < 0, -turned[:, 2:], np.nan)
        x, y = (turned[:, :2] / depth * focus).T
        if config.view == "upright" and config.camera.startswith("corner"):
            x = -x  # the buffer's rows go upwards, so that it is y that is right as it is
        elif config.view == "upright":
            y = -y
        return np.stack([config.width / 2 + x, config.height / 2 + y], 1).astype(np.float32)

    def get_state(self) -> dict[str, Any]:
        """All that the rest of the run depends on: how the episode began, and its actions."""
        actions = np.array(self._actions, np.float32).reshape(-1, 4)
        return {"rng": self._begun_with, "actions": actions}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on exactly from where get_state() was called: the episode is played again."""
        self._task.np_random.bit_generator.state = dict(state["rng"])
        self.reset()
        for action in state["actions"]:
            self._advance(np.array(action, np.float32))

    def close(self) -> None:
        """Nothing is open: the process's canvas stays for other tasks."""


_CANVASES: dict[tuple[object, ...], Canvas] = {}


def _canvas(task: Any, config: Config) -> Canvas:
    """This process's canvas for a scene: tasks of one kind share its shapes."""
    key = os.getpid(), task.model_name, config.render, config.height, config.width
    if key not in _CANVASES:
        _CANVASES[key] = Canvas(task.model, config.render, config.height, config.width)
    return _CANVASES[key]
