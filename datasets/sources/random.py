"""Frames of a uniformly random policy, as SPIRL pretrains on (Jiang and Weng 2023, App. A.2).

Games are played to their end. The authors' released code records first lives only, which is
`lives: first`: an episode is truncated where the first life ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import gymnasium

from datasets import envs
from datasets.checked import Checked, Natural
from datasets.errors import FoveaError
from datasets.streams import Act, Stream, Streams, equal_shares

ACTION_LOG, FRAME_INFO = None, None


@dataclass(frozen=True)
class Config(Checked):
    """How the frames are collected."""

    seed: Natural = 0
    streams: Streams = 8  # environments; each gives an equal share of the frames
    lives: Literal["all", "first"] = "all"


def streams(config: Config, env: str, count: int) -> list[Stream]:
    """`count` frames of `env`. Raises FoveaError for `lives: first` where there are no lives, and
    what `equal_shares` raises.
    """
    shares = equal_shares(env, uniform, seed=config.seed, streams=config.streams, count=count)
    first = config.lives == "first"
    if first and "lives" not in envs.frame_info(env):
        raise FoveaError(f"lives: first, but {env} has no lives; leave it out")
    return [replace(share, first_life=first) for share in shares]


def uniform(env: gymnasium.Env[Any, Any], seed: int) -> Act:
    """Uniformly random actions, whatever the observation."""
    env.action_space.seed(seed)
    return lambda _: env.action_space.sample()
