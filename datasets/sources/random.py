"""Frames of a uniformly random policy, as SPIRL pretrains on (Jiang and Weng 2023, App. A.2).

Games are played whole. The authors' released code keeps first lives only, which is `lives: first`:
a game is left where its first life ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gymnasium

from datasets import envs
from datasets.errors import FoveaError
from datasets.streams import Act, Stream, check_shares, shared_out


@dataclass(frozen=True)
class Config:
    """How the frames are drawn."""

    seed: int = 0
    streams: int = 8  # environments; each gives an equal share of the frames
    lives: str = "all"  # or first

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values."""
        check_shares(self.seed, self.streams)
        if self.lives not in ("all", "first"):
            raise ValueError(f"lives: {self.lives!r}, must be all or first")


def streams(config: Config, env: str, count: int) -> list[Stream]:
    """`count` frames of `env`; FoveaError for first lives where there are none, and as
    `shared_out` refuses.
    """
    shares = shared_out(env, uniform, seed=config.seed, streams=config.streams, count=count)
    first = config.lives == "first"
    if first and "lives" not in envs.frame_info(env):
        raise FoveaError(f"lives: first, but {env} has no lives; leave it out")
    return [replace(share, first_life=first) for share in shares]


def uniform(env: gymnasium.Env[Any, Any], seed: int) -> Act:
    """Any action, whatever is seen."""
    env.action_space.seed(seed)
    return lambda _: env.action_space.sample()
