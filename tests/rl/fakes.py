"""A tiny game, tiny encoders and a tiny Rainbow, for training loops of milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from torch import Tensor

from pretrain.encoder import Encoder, EncoderConfig, EncoderFeatures, Kind, Obs
from rl import agents, nets
from rl.agents.rainbow import Config
from rl.policy import Policy, Spec, make_policy

SIZE = 25  # pixels a side; the convolutions of Rainbow need no less
LARGE = 36  # nor those of on-policy agents
STATES = 5


class Chain(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """Five states in a row, beginning at the left end: action 1 goes right, any other left.

    The right end pays 3 and costs one of the two lives; the second lost life ends the game, and so
    does the 12th step since the last life (truncated). Like the Atari wrapper it has returns of
    whole games in `info`, and its state can be read and restored.
    """

    size = SIZE

    def __init__(self, seed: Sequence[int], slip: float, life_loss_ends: bool) -> None:
        self.random = np.random.default_rng(seed)
        self.slip, self.life_loss_ends = slip, life_loss_ends
        self.place = self.lives = self.since = 0
        self.total, self.length = 0.0, 0
        self.action_space = gymnasium.spaces.Discrete(3)
        self.observation_space = gymnasium.spaces.Box(0, 255, (self.size, self.size, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        self.place = self.since = 0
        if not (self.life_loss_ends and self.lives == 1):
            self.lives, self.total, self.length = 2, 0.0, 0
        return self.image(), self.info()

    def image(self) -> NDArray[np.uint8]:
        image = np.zeros((self.size, self.size, 3), np.uint8)
        image[:, 5 * self.place : 5 * self.place + 5] = 200
        image[0, 0, 0] = self.length % 256  # no two frames of a game are the same
        return image

    def info(self) -> dict[str, Any]:
        return {"lives": self.lives, "game_over": False}

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        if self.random.random() < self.slip:
            action = np.int64(self.random.integers(3))
        self.place = min(max(self.place + (1 if action == 1 else -1), 0), STATES - 1)
        self.since, self.length = self.since + 1, self.length + 1
        end = self.place == STATES - 1
        reward = 3.0 if end else 0.0
        self.total += reward
        image = self.image()
        if end:
            self.lives -= 1
            self.place = self.since = 0
        over = self.lives == 0
        truncated = self.since == 12
        if truncated:
            self.lives = 0
        info = self.info()
        if over or truncated:
            info |= {"game_over": True, "game_return": self.total, "game_length": self.length}
        return image, reward, over or (end and self.life_loss_ends), truncated, info

    def get_state(self) -> dict[str, Any]:
        names = ("place", "lives", "since", "total", "length")
        numbers = np.array([getattr(self, name) for name in names], np.uint8)
        return {"numbers": numbers, "rng": self.random.bit_generator.state}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.random.bit_generator.state = state["rng"]
        self.place, self.lives, self.since, total, self.length = map(int, state["numbers"])
        self.total = float(total)


def make_chain(
    word: str,
    *,
    num_envs: int,
    seed: int,
    life_loss_ends: bool = False,
    images: bool = True,
    slip: float = 0.1,
) -> SyncVectorEnv:
    """datasets.envs.make for the chain."""
    return SyncVectorEnv(
        [partial(Chain, (seed, index), slip, life_loss_ends) for index in range(num_envs)],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )


def single_chain(
    word: str, *, seed: int, index: int, images: bool = True, slip: float = 0.1
) -> Chain:
    """datasets.envs.single for the chain."""
    return Chain((seed, index), slip, life_loss_ends=False)


@dataclass(frozen=True)
class Features(EncoderFeatures):
    """Features of a given kind."""

    named: Kind = "pixels"

    @property
    def kind(self) -> Kind:
        return self.named


class Fake(Encoder):
    """An encoder without settings."""

    image_shape = (3, SIZE, SIZE)
    kind: Kind = "tokens"

    def __init__(self) -> None:
        super().__init__(EncoderConfig(), Features(self.kind), self.image_shape)


class Pixels(Fake):
    """The frames unchanged."""

    kind: Kind = "pixels"

    def forward(self, image: Tensor) -> Obs:
        return {"image": image}


class LargePixels(Pixels):
    """Frames of a chain that is `LARGE`, which the convolutions of on-policy agents ask for."""

    image_shape = (3, LARGE, LARGE)


class Tokens(Fake):
    """Four tokens of eight numbers: one encodes the position, one the step, two are padding."""

    max_tokens = 4
    dim = 8
    selects = True

    def __init__(self) -> None:
        super().__init__()
        self.frames = 0  # encoded so far

    def forward(self, image: Tensor) -> Obs:
        self.frames += len(image)
        x = torch.zeros(len(image), 4, 8)
        x[:, 0, :STATES] = image[:, 0, 12, 2::5].float() / 100
        x[:, 1, 5] = image[:, 0, 0, 0].float() / 256
        mask = torch.zeros(len(image), 4, dtype=torch.bool)
        mask[:, :2] = True
        return {"x": x, "mask": mask, "pos": torch.tensor([7, 3, 0, 0]).expand(len(image), -1)}

    def salient(self, image: Tensor) -> list[int]:
        """The positions of the tokens that are not padding."""
        return [7, 3]


SMALL = Config(
    steps=160,
    learn_start=40,
    replay_capacity=100,
    batch_size=8,
    stack=3,
    n_step=4,
    gamma=0.9,
    atoms=11,
    value_min=-2.0,
    value_max=2.0,
    hidden=16,
    learning_rate=1e-3,
    target_every=20,
)


def policy(
    config: Any = SMALL,
    encoder: Encoder | None = None,
    seed: int = 0,
    *,
    agent: str = "rainbow",
    env: str = "fake/Chain",
    actions: int = 3,
    net: Any = None,
    device: str = "cpu",
) -> Policy:
    """A fresh small policy on the chain, with the agent's default net for the encoder's features,
    or the net that `net` is a Config of.
    """
    encoder = encoder or Tokens()
    name = agents.net_for(agent, encoder.features.kind)
    if net is not None:
        name = type(net).__module__.rpartition(".")[2]
    spec = Spec(env, agent, config, name, net or nets.config_for(name)(), actions)
    return make_policy(spec, encoder, seed=seed, device=device)


def ignore(_: int) -> None:
    """Progress that is ignored."""
