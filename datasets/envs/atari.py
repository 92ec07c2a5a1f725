"""Atari 2600 games with the papers' preprocessing, directly on ale_py: "atari/Pong?screen=gray84".

One agent step is four emulator frames of the same action. The screen (datasets/screens.py) makes
the observation from the third and the fourth. A game starts with 1 to 30 no-op frames. Rewards are
raw, actions are not sticky, a game is truncated after 27,000 agent steps.

The screen also decides who presses FIRE, where the minimal action set has it:

- rgb96, the default, is SPIRL's wrapper (Jiang and Weng 2023, Table 9): one agent step of FIRE
  after the no-ops and after each lost life;
- gray84 is OpenAI Baselines' `EpisodicLife` and `FireReset`: FIRE and then action 2, an agent step
  each; after a lost life an agent step of no-op before them, in games without FIRE too;
- native presses nothing (IMPALA's and S3TA's set-ups leave that to the agent).

"atari/Breakout?infinite=true" is BreakoutInfinite of Nikulin et al. (2019, section 6.2): the wall
comes back whenever it is cleared. The cartridge has two walls of 432 points; it brings the second
one back where the score is exactly 432. So a score of 864 becomes 432 in RAM, right after the frame
that shows it. The emulator's next reward is the difference, -432, which is added back.

One end of a game is added that the emulator misses: a Frostbite player freezes to death on the last
life. ale-py (still at 0.12.1) goes on until the horizon and shows the cartridge's demonstration.
Nothing scores in it, so returns stay the same; but the replay of a policy that waits would fill
with it, and its evaluation could take an hour (openai/gym, issue 1539; tests/datasets/
test_atari.py).

Why not a ready-made wrapper (tests/datasets/test_atari.py compares them frame by frame): ale-py's
AtariVectorEnv has the same maxima but resizes by area, samples 0 to 29 no-ops, presses FIRE for one
frame and only at the start, and its `episodic_life` throws away the rest of the game. Gymnasium's
AtariPreprocessing resizes by area, does not press FIRE, and where a game ends early in a step it
returns the image of the step before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import ale_py
import ale_py.roms
import cv2
import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from datasets.checked import Checked, Count, Natural
from datasets.screens import SCREENS

Observation = NDArray[np.uint8]

FRAME_INFO = ("lives", "ram")
ACTIONS, OPTIONS, GAME_OPTIONS = "discrete", ("screen",), ("infinite",)
NOOP, FIRE = 0, 1  # values of ale_py.Action
WARM_UP = 10  # no-op frames before a state is restored: ale-py 0.12.1 needs them on Qbert, Tetris
# Frostbite's RAM: the player's state with its bit "frozen"; lives in reserve, a byte's lower half.
STATE, FROZEN, RESERVE = 0x71, 0x10, 0x4C
# Breakout's RAM: the score's hundreds, a byte's lower half, and its last two digits.
HUNDREDS, LAST_DIGITS = 76, 77
WALL = 432  # points of a wall of Breakout


@dataclass(frozen=True)
class Config(Checked):
    """How a game is played and rendered; the defaults are SPIRL's (Table 9, released wrapper)."""

    game: str  # as games() spells it
    num_envs: Count = 1
    life_loss_ends: bool = False  # training: a lost life is `terminated`, reset() goes on
    images: bool = True  # else all images are black
    screen: Literal["rgb96", "gray84", "native"] = "rgb96"  # of datasets/screens.py
    infinite: Literal["false", "true"] = "false"  # Breakout's wall always comes back
    noop_max: Natural = 30  # a game starts with 1..noop_max no-op frames, or with none if 0
    horizon: Count = 27_000  # agent steps before a game is truncated: 108,000 emulator frames

    def rules(self) -> Iterator[str]:
        """The game must be one of ale-py's, and Breakout if infinite."""
        if self.game not in games():
            yield f"game: {self.game!r}, must be one of datasets.envs.games('atari')"
        elif self.infinite == "true" and self.game != "Breakout":
            yield f"infinite: true, must be false in {self.game}: only Breakout has it"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        screen = SCREENS[self.screen]
        return screen.channels, *(screen.size or emulator_size(self.game))


@cache
def games() -> dict[str, str]:
    """Every single-player game of ale-py: "MsPacman" -> ROM "ms_pacman", sorted."""
    files = sorted(Path(ale_py.roms.__file__).parent.glob("*.bin"))
    # Loading one of the others (Combat, Joust, ...) makes the emulator end the process.
    roms = [path.stem for path in files if ale_py.ALEInterface.isSupportedROM(path)]
    return {rom.title().replace("_", ""): rom for rom in roms}


@cache
def emulator_size(game: str) -> tuple[int, int]:
    """Rows and columns of the emulator's screen: (210, 160) on most games, up to 250 rows."""
    rows, columns = _emulator(game).getScreenDims()
    return int(rows), int(columns)


def _emulator(game: str) -> ale_py.ALEInterface:
    """An emulator with the game's ROM in it."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("max_num_frames_per_episode", 0)  # the horizon is counted in step()
    ale.loadROM(Path(ale_py.roms.__file__).parent / f"{games()[game]}.bin")
    return ale


def single(config: Config, seed: int, index: int) -> AtariGame:
    """The `index`-th game of make(config, seed), alone."""
    return AtariGame(config, (seed, index))


def make(config: Config, seed: int) -> VectorEnv[Any, Any, Any]:
    """`num_envs` games side by side, the i-th seeded by (seed, i) alone; reset() takes no seed.

    Observations are (num_envs, H, W, C) uint8. Where a step ends an episode, the observation is
    already the next episode's first; the true last one is in `info["final_obs"]` (gymnasium's
    SAME_STEP mode), its info in `info["final_info"]`.
    """
    return SyncVectorEnv(
        [partial(single, config, seed, index) for index in range(config.num_envs)],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )


def action_space(config: Config) -> gymnasium.spaces.Discrete:
    """The game's minimal action set."""
    return gymnasium.spaces.Discrete(len(emulator_actions(config)))


def emulator_actions(config: Config) -> list[int]:
    """The emulator's numbers of the minimal action set, which only the ROM has: it is loaded, and
    nothing is run.
    """
    return [int(action.value) for action in _emulator(config.game).getMinimalActionSet()]


def preprocessing(config: Config) -> dict[str, Any]:
    """How an image is made, and what is done for the agent (datasets/envs/__init__.py)."""
    screen = SCREENS[config.screen]
    actions = _emulator(config.game).getMinimalActionSet()
    start, after = _automatic(config.screen, actions)
    return {
        "colour": "luma" if screen.channels == 1 else "rgb",
        "frame_skip": 4,  # as _act() plays
        "maximum_of": screen.pooled,
        "resize": screen.resize,
        "noops": [min(1, config.noop_max), config.noop_max],
        "at_start": [action.name for action in start],
        "after_lost_life": [action.name for action in after],
        "horizon": config.horizon,
    }


class AtariGame(gymnasium.Env[Observation, np.int64]):
    """One game; `info` belongs to the observation beside it: lives, ram (128,) uint8, game_over.

    `game_over` is true where the whole game has ended, by itself or by the horizon; only then info
    has `game_return` (float, sum of the game's raw rewards) and `game_length` (int, agent steps).

    With equal actions the emulator's states do not depend on `life_loss_ends`. Only the episodes'
    ends differ, and the reward of the actions that reset() takes after a lost life: it belongs to
    the game's return but to no step.
    """

    def __init__(self, config: Config, seed: int | Sequence[int] = 0) -> None:
        """Load the ROM; the first game starts with reset()."""
        cv2.setNumThreads(1)  # more threads make so small a resize slower
        self._ale = _emulator(config.game)
        self._frame = self._infinite_frame if config.infinite == "true" else self._ale.act
        self._actions = self._ale.getMinimalActionSet()
        self._start_actions, self._life_actions = _automatic(config.screen, self._actions)
        self._config = config
        channels, height, width = config.image_shape
        self._shape, self._render = (height, width, channels), SCREENS[config.screen].render
        self._rng = np.random.default_rng(seed)
        self._screens = np.zeros((2, *self._ale.getScreenDims(), 3), np.uint8)
        self._lives = 0
        self._life_lost = False  # the last step ended the episode but not the game
        self._game_return, self._game_length = 0.0, 0
        self._owed = 0  # what the next frame's reward lacks
        self.action_space = gymnasium.spaces.Discrete(len(self._actions))
        self.observation_space = gymnasium.spaces.Box(0, 255, self._shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Go on with the game if a lost life ended the episode; else, or with a seed, start one."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        goes_on = self._life_lost and seed is None
        if goes_on:
            self._game_return += self._press(self._life_actions)
        if not goes_on or self._over():
            self._new_game()
        self._life_lost = False
        return self.observe()

    def step(self, action: int | np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Repeat `action`, an index of the minimal action set, for four frames; sum the rewards."""
        lives = self._lives
        reward = self._act(self._actions[action])
        # Some games show zero lives for a few frames before they are over: only game_over() counts.
        lost = 0 < self._lives < lives
        if lost and not self._config.life_loss_ends:
            reward += self._press(self._life_actions)
        self._game_return += reward
        self._game_length += 1
        over = self._over()
        truncated = self._game_length >= self._config.horizon and not over
        self._life_lost = lost and self._config.life_loss_ends and not (over or truncated)
        image, info = self.observe()
        if over or truncated:
            info["game_over"] = True
            info |= {"game_return": self._game_return, "game_length": self._game_length}
        return image, reward, over or self._life_lost, truncated, info

    def observe(self) -> tuple[Observation, dict[str, Any]]:
        """The current observation and info again, as a run needs them after set_state()."""
        images = self._config.images
        image = self._render(*self._screens) if images else np.zeros(self._shape, np.uint8)
        return image, {"lives": self._lives, "ram": self._ale.getRAM(), "game_over": False}

    def get_state(self) -> dict[str, Any]:
        """All that the rest of the game depends on: JSON-able values, and uint8 arrays."""
        emulator = self._ale.cloneState(include_rng=True).serialize()
        return {
            "emulator": np.frombuffer(emulator, np.uint8).copy(),
            "screens": self._screens.copy(),
            "rng": self._rng.bit_generator.state,
            "lives": self._lives,
            "life_lost": self._life_lost,
            "game_return": self._game_return,
            "game_length": self._game_length,
            "owed": self._owed,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on exactly from where get_state() was called, in any process; no reset() is needed.

        The emulator itself parses `state["emulator"]`: give it only states this program wrote. A
        fresh one of ale-py 0.12.1 restores Qbert and Tetris wrongly unless it has run some frames.
        """
        self._ale.reset_game()
        for _ in range(WARM_UP):
            self._ale.act(NOOP)
        self._ale.restoreState(ale_py.ALEState(state["emulator"].tobytes()))
        self._screens[...] = state["screens"]
        self._rng.bit_generator.state = state["rng"]
        self._lives, self._life_lost = state["lives"], state["life_lost"]
        self._game_return, self._game_length = state["game_return"], state["game_length"]
        self._owed = state["owed"]

    def _over(self) -> bool:
        frozen = self._config.game == "Frostbite" and self._frozen()
        return bool(self._ale.game_over()) or frozen

    def _frozen(self) -> bool:
        """Whether Frostbite's player freezes to death on the last life."""
        memory = self._ale.getRAM()
        return bool(memory[STATE] & FROZEN) and not memory[RESERVE] & 0x0F

    def _new_game(self) -> None:
        self._ale.reset_game()
        self._owed = 0
        most = self._config.noop_max
        for _ in range(int(self._rng.integers(1, most + 1)) if most else 0):
            self._ale.act(NOOP)
            if self._ale.game_over():
                self._ale.reset_game()
        self._ale.getScreenRGB(self._screens[0])
        self._screens[1] = self._screens[0]
        self._press(self._start_actions)
        self._lives = self._ale.lives()
        self._game_return, self._game_length = 0.0, 0

    def _press(self, actions: Sequence[ale_py.Action]) -> float:
        return sum((self._act(action) for action in actions), 0.0)

    def _act(self, action: ale_py.Action) -> float:
        """Play four frames of `action` and keep the last two screens; no effect after the end."""
        act = self._frame
        reward = act(action) + act(action) + act(action)
        self._ale.getScreenRGB(self._screens[0])
        reward += act(action)
        self._ale.getScreenRGB(self._screens[1])
        self._lives = self._ale.lives()
        return float(reward)

    def _infinite_frame(self, action: ale_py.Action) -> int:
        """Play one frame of BreakoutInfinite."""
        reward = int(self._ale.act(action)) + self._owed
        self._owed = 0
        memory = self._ale.getRAM()
        if (memory[HUNDREDS] & 0x0F, memory[LAST_DIGITS]) == (0x08, 0x64):
            self._ale.setRAM(HUNDREDS, int(memory[HUNDREDS] & 0xF0) | 0x04)
            self._ale.setRAM(LAST_DIGITS, 0x32)
            self._owed = WALL
        return reward


def _automatic(
    screen: str, actions: Sequence[ale_py.Action]
) -> tuple[list[ale_py.Action], list[ale_py.Action]]:
    """Actions taken for the agent, an agent step each: at a game's start, after a lost life."""
    fire = [action for action in actions if action.value == FIRE]
    if screen == "native":
        return [], []
    if screen == "rgb96":
        return fire, fire
    starts = list(actions[1:3]) if fire else []
    return starts, [actions[NOOP], *starts]
