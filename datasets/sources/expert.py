"""Frames of Meta-World's scripted policies, which solve their tasks (Yu et al. 2019).

They act on the task's state. Gaussian noise of standard deviation `noise` is added to each of the
four actions, so that episodes differ, and actions are clipped to [-1, 1]. A share `random` of the
steps is uniformly random instead, which shows more of the scene.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from datasets import envs
from datasets.checked import Checked, Fraction, Natural, NonNegative
from datasets.errors import FoveaError
from datasets.streams import Act, Stream, Streams, equal_shares

ACTION_LOG, FRAME_INFO = None, None


@dataclass(frozen=True)
class Config(Checked):
    """How the frames are collected."""

    seed: Natural = 0
    streams: Streams = 8  # environments; each gives an equal share of the frames
    noise: NonNegative = 0.1
    random: Fraction = 0.0


def streams(config: Config, env: str, count: int) -> list[Stream]:
    """`count` frames of `env`, a task of Meta-World. Raises FoveaError for another suite's."""
    envs.check(env)  # one task: each has its own policy
    suite, _, game = env.partition("/")
    if suite != "metaworld":
        raise FoveaError(f"source expert: {env} has no scripted policy; Meta-World's tasks have")
    task = game.partition("?")[0]  # without options of rendering
    policy = partial(scripted, task, config.noise, config.random)
    return equal_shares(env, policy, seed=config.seed, streams=config.streams, count=count)


def scripted(
    game: str, noise: float, random: float, env: gymnasium.Env[Any, Any], seed: int
) -> Act:
    """The task's scripted policy with noise."""
    from metaworld.policies import ENV_POLICY_MAP  # takes a second, and only this source needs it

    # The policies exceed 1 and warn every time; the task would clip that, as is done below.
    warnings.filterwarnings("ignore", r"Constant\(s\) may be too high")
    experts: dict[str, Any] = ENV_POLICY_MAP
    expert, rng = experts[f"{game}-v3"](), np.random.default_rng(seed)

    def act(info: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
        if rng.random() < random:
            return rng.uniform(-1, 1, 4).astype(np.float32)
        action = np.clip(expert.get_action(info["state"]), -1, 1) + rng.normal(0, noise, 4)
        return np.asarray(np.clip(action, -1, 1), np.float32)

    return act
