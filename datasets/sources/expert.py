"""Frames of Meta-World's scripted policies, which solve their tasks (Yu et al. 2019).

They act on the task's state. `noise` is the standard deviation of a normal number added to each of
the four actions, so that episodes stray from the one way; an action is within -1 and 1 at the end.
A share of `random` steps is a uniformly random action instead, which shows more of the scene.
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
from datasets.streams import Act, Stream, Streams, shared_out

LEARNED = None


@dataclass(frozen=True)
class Config(Checked):
    """How the frames are collected."""

    seed: Natural = 0
    streams: Streams = 8  # environments; each gives an equal share of the frames
    noise: NonNegative = 0.1
    random: Fraction = 0.0


def streams(config: Config, env: str, count: int) -> list[Stream]:
    """`count` frames of `env`, a task of Meta-World; FoveaError for another suite's."""
    envs.check(env)  # one task, which has a policy of its own
    suite, _, game = env.partition("/")
    if suite != "metaworld":
        raise FoveaError(f"source expert: {env} has no scripted policy, Meta-World's tasks have")
    task = game.partition("?")[0]  # whatever the view
    policy = partial(scripted, task, config.noise, config.random)
    return shared_out(env, policy, seed=config.seed, streams=config.streams, count=count)


def scripted(
    game: str, noise: float, random: float, env: gymnasium.Env[Any, Any], seed: int
) -> Act:
    """The task's own policy, disturbed."""
    from metaworld.policies import ENV_POLICY_MAP  # takes a second: only its players wait

    # They ask for more than 1 and say so every time; below it is clipped, as the task would.
    warnings.filterwarnings("ignore", r"Constant\(s\) may be too high")
    experts: dict[str, Any] = ENV_POLICY_MAP
    expert, rng = experts[f"{game}-v3"](), np.random.default_rng(seed)

    def act(info: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
        if rng.random() < random:
            return rng.uniform(-1, 1, 4).astype(np.float32)
        action = np.clip(expert.get_action(info["state"]), -1, 1) + rng.normal(0, noise, 4)
        return np.asarray(np.clip(action, -1, 1), np.float32)

    return act
