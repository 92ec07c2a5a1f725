"""Atari 2600 games as SPIRL shows them (Jiang and Weng 2023, Table 9), straight on ale_py.

One agent step is four emulator frames of the same action; the observation is the pixelwise maximum
of the third and fourth, resized bilinearly from 210x160 to 96x96 RGB. A game starts with 1 to 30
no-op frames, then one agent step of FIRE where the minimal action set has it; FIRE again after each
lost life. Rewards are raw, nothing is sticky, a game is cut (truncated) after 27,000 agent steps.

One end is told here that the emulator misses: a Frostbite player who freezes to death on the last
life. ale-py goes on until the horizon (at 0.12.1 still), showing the cartridge's demonstration, in
which nothing scores; so a policy that waits may hold a replay of it, and its evaluation take an
hour, but every return is the same (openai/gym, issue 1539; tests/datasets/test_atari.py).

Why not a ready-made wrapper (tests/datasets/test_atari.py compares them frame by frame): ale-py's
AtariVectorEnv has the same maxima but resizes by area, draws 0 to 29 no-ops, presses FIRE for one
frame and only at the start, and its `episodic_life` throws away the rest of the game. Gymnasium's
AtariPreprocessing resizes by area, presses no FIRE, and where a game ends early in a step it shows
the picture of the step before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import ale_py
import ale_py.roms
import cv2
import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

Observation = NDArray[np.uint8]

FRAME_INFO = ("lives", "ram")
ACTIONS, OPTIONS = "discrete", ()
NOOP, FIRE = 0, 1  # values of ale_py.Action
# Frostbite's memory: what befalls the player, and the lives in reserve in the lower half of a byte.
FATE, FROZEN, RESERVE = 0x71, 0x10, 0x4C


@dataclass(frozen=True)
class Config:
    """What is shown of a game; the defaults are SPIRL's (Table 9 and its released wrapper)."""

    game: str  # as games() spells it
    num_envs: int = 1
    life_loss_ends: bool = False  # training: a lost life is `terminated`, reset() goes on
    draw: bool = True  # or all images are black
    noop_max: int = 30  # a game starts with 1..noop_max no-op frames, or with none if 0
    height: int = 96
    width: int = 96
    horizon: int = 27_000  # agent steps before a game is truncated: 108,000 emulator frames

    def __post_init__(self) -> None:
        """Raise ValueError for what no game can be."""
        if self.game not in games():
            raise ValueError(f"game: {self.game!r}, must be one of datasets.envs.games('atari')")
        for name in ("num_envs", "height", "width", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}, must be at least 1")
        if self.noop_max < 0:
            raise ValueError(f"noop_max: {self.noop_max}, must be at least 0")


@cache
def games() -> dict[str, str]:
    """Every game ale-py ships that one can play alone: "MsPacman" -> ROM "ms_pacman", sorted."""
    shipped = sorted(Path(ale_py.roms.__file__).parent.glob("*.bin"))
    # Loading one of the others (Combat, Joust, ...) makes the emulator end the process.
    playable = [path.stem for path in shipped if ale_py.ALEInterface.isSupportedROM(path)]
    return {rom.title().replace("_", ""): rom for rom in playable}


def single(config: Config, seed: int, index: int) -> AtariGame:
    """The `index`-th game of make(config, seed), alone."""
    return AtariGame(config, (seed, index))


def make(config: Config, seed: int) -> VectorEnv[Any, Any, Any]:
    """`num_envs` games side by side, the i-th seeded by (seed, i) alone; reset() takes no seed.

    Observations are (num_envs, 96, 96, 3) uint8. Where a step ends an episode, the observation is
    already the next episode's first; the true last one is in `info["final_obs"]` (gymnasium's
    SAME_STEP mode), its info in `info["final_info"]`.
    """
    return SyncVectorEnv(
        [partial(single, config, seed, index) for index in range(config.num_envs)],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )


class AtariGame(gymnasium.Env[Observation, np.int64]):
    """One game; `info` goes with the observation beside it: lives, ram (128,) uint8, game_over.

    `game_over` is true where the whole game has ended, by itself or by the horizon; only then info
    has `game_return` (float, sum of the game's raw rewards) and `game_length` (int, agent steps).

    For given actions the emulator goes the same way with and without `life_loss_ends`; only the
    episodes' ends differ, and that the reward of FIRE after a life is the game's but no step's.
    """

    def __init__(self, config: Config, seed: int | Sequence[int] = 0) -> None:
        """Load the ROM; the first game starts with reset()."""
        cv2.setNumThreads(1)  # a resize this small only loses time on more
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        self._ale.setFloat("repeat_action_probability", 0.0)
        self._ale.setInt("max_num_frames_per_episode", 0)  # the horizon is counted in step()
        self._ale.loadROM(Path(ale_py.roms.__file__).parent / f"{games()[config.game]}.bin")
        self._actions = self._ale.getMinimalActionSet()
        self._fire = next((action for action in self._actions if action.value == FIRE), None)
        self._config = config
        self._rng = np.random.default_rng(seed)
        self._screens = np.zeros((2, *self._ale.getScreenDims(), 3), np.uint8)
        self._lives = 0
        self._life_lost = False  # the last step ended the episode but not the game
        self._game_return, self._game_length = 0.0, 0
        self.action_space = gymnasium.spaces.Discrete(len(self._actions))
        shape = (config.height, config.width, 3)
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Go on with the game if a lost life ended the episode; else, or if seeded, a new one."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        goes_on = self._life_lost and seed is None
        if goes_on:
            self._game_return += self._press_fire()
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
            reward += self._press_fire()
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
        """The current observation and info once more, as a run needs them after set_state()."""
        image = np.zeros((self._config.height, self._config.width, 3), np.uint8)
        if self._config.draw:
            third, fourth = self._screens
            pooled = np.maximum(third, fourth, out=third)  # doing it again changes nothing
            cv2.resize(pooled, image.shape[1::-1], dst=image, interpolation=cv2.INTER_LINEAR)
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
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on exactly from where get_state() was called, in any process; no reset() is needed.

        The emulator itself parses `state["emulator"]`: give it only states this program wrote.
        """
        self._ale.restoreState(ale_py.ALEState(state["emulator"].tobytes()))
        self._screens[...] = state["screens"]
        self._rng.bit_generator.state = state["rng"]
        self._lives, self._life_lost = state["lives"], state["life_lost"]
        self._game_return, self._game_length = state["game_return"], state["game_length"]

    def _over(self) -> bool:
        frozen = self._config.game == "Frostbite" and self._frozen()
        return bool(self._ale.game_over()) or frozen

    def _frozen(self) -> bool:
        """Whether Frostbite's player freezes to death on the last life."""
        memory = self._ale.getRAM()
        return bool(memory[FATE] & FROZEN) and not memory[RESERVE] & 0x0F

    def _new_game(self) -> None:
        self._ale.reset_game()
        most = self._config.noop_max
        for _ in range(int(self._rng.integers(1, most + 1)) if most else 0):
            self._ale.act(NOOP)
            if self._ale.game_over():
                self._ale.reset_game()
        self._ale.getScreenRGB(self._screens[0])
        self._screens[1] = self._screens[0]
        self._press_fire()
        self._lives = self._ale.lives()
        self._game_return, self._game_length = 0.0, 0

    def _press_fire(self) -> float:
        return 0.0 if self._fire is None else self._act(self._fire)

    def _act(self, action: ale_py.Action) -> float:
        """Four frames of `action`, keeping the last two. A game that is over stands still."""
        act = self._ale.act
        reward = act(action) + act(action) + act(action)
        self._ale.getScreenRGB(self._screens[0])
        reward += act(action)
        self._ale.getScreenRGB(self._screens[1])
        self._lives = self._ale.lives()
        return float(reward)
