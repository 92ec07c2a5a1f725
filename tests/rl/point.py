"""A point that SAC learns to move in seconds, and small agents for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from pretrain.encoder import Obs
from pretrain.encoders import state
from rl.agent import Batch
from rl.agents.sac import Agent, Config
from rl.policy import Policy
from tests.rl import fakes

SMALL = Config(steps=160, learn_start=40, replay_capacity=100, batch_size=8, hidden=16)
ACTIONS = 2


class Point(gymnasium.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """A point in a square: an action moves it by up to 0.3. The reward is its nearness to a goal,
    which is sampled for each episode; within 0.2 of it is a success. Truncated after 10 steps,
    never terminated.
    """

    def __init__(self, seed: Sequence[int], images: bool) -> None:
        self.random, self.images = np.random.default_rng(seed), images
        self.place, self.goal = np.zeros(2), np.zeros(2)
        self.total, self.length, self.reached = 0.0, 0, False
        self.action_space = gymnasium.spaces.Box(-1, 1, (ACTIONS,), np.float32)
        self.observation_space = gymnasium.spaces.Box(0, 255, (25, 25, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        self.place, self.goal = self.random.uniform(-1, 1, (2, 2))
        self.total, self.length, self.reached = 0.0, 0, False
        return self.observe()

    def observe(self) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        image = np.zeros((25, 25, 3), np.uint8)
        if self.images:
            x, y = (12 + 12 * self.place).astype(int)
            image[y, x] = 255
        now = np.concatenate([self.place, self.goal])
        return image, {"state": now, "game_over": False}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self.place = np.clip(self.place + 0.3 * action, -1, 1)
        distance = float(np.abs(self.place - self.goal).max())
        self.total, self.length = self.total - distance, self.length + 1
        self.reached |= distance < 0.2
        image, info = self.observe()
        if self.length == 10:
            info |= {"game_over": True, "game_return": self.total, "game_length": 10}
            info |= {"game_success": self.reached}
        return image, -distance, False, self.length == 10, info

    def get_state(self) -> dict[str, Any]:
        numbers = np.array([*self.place, *self.goal, self.total, self.length, self.reached])
        return {"numbers": numbers, "rng": self.random.bit_generator.state}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.random.bit_generator.state = state["rng"]
        *places, self.total, length, reached = (float(number) for number in state["numbers"])
        self.place, self.goal = np.array(places[:2]), np.array(places[2:])
        self.length, self.reached = int(length), bool(reached)


def make_point(
    word: str, *, num_envs: int, seed: int, life_loss_ends: bool = False, images: bool = True
) -> SyncVectorEnv:
    points = [partial(Point, (seed, index), images) for index in range(num_envs)]
    return SyncVectorEnv(points, autoreset_mode=AutoresetMode.SAME_STEP)


def single_point(word: str, *, seed: int, index: int, images: bool = True) -> Point:
    return Point((seed, index), images)


STATES = state.Encoder(state.Config(4), state.Features(), (3, 25, 25))


def policy(config: Config = SMALL, encoder: Any = STATES, seed: int = 0, **choices: Any) -> Policy:
    return fakes.policy(
        config, encoder, seed, agent="sac", env="fake/Point", **{"actions": ACTIONS} | choices
    )


def make(config: Config = SMALL, encoder: Any = STATES, seed: int = 0, **choices: Any) -> Agent:
    agent = policy(config, encoder, seed, **choices).agent
    assert isinstance(agent, Agent)
    return agent


def random_batch(config: Config = SMALL, seed: int = 0, obs: Obs | None = None) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    size = config.batch_size

    def states() -> Obs:
        return {"state": torch.randn(size, 1, 4, generator=generator)}

    return Batch(
        obs=obs or states(),
        action=torch.rand(size, ACTIONS, generator=generator) * 2 - 1,
        reward=torch.randn(size, generator=generator),
        discount=0.9 * (torch.rand(size, generator=generator) < 0.8),
        next_obs=obs or states(),
        weight=torch.ones(size),
        index=torch.arange(size),
    )
