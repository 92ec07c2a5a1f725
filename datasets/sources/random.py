"""Frames of a uniformly random policy, as SPIRL pretrains on (Jiang and Weng 2023, App. A.2).

Games are played whole: the authors' released code keeps first lives only, here the later ones are
there too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium

from datasets.streams import Act, Stream, check_shares, shared_out


@dataclass(frozen=True)
class Config:
    """How the frames are drawn."""

    seed: int = 0
    streams: int = 8  # environments; each gives an equal share of the frames

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values."""
        check_shares(self.seed, self.streams)


def streams(config: Config, env: str, count: int) -> list[Stream]:
    """`count` frames of `env`; see `shared_out` for what is refused."""
    return shared_out(env, uniform, seed=config.seed, streams=config.streams, count=count)


def uniform(env: gymnasium.Env[Any, Any], seed: int) -> Act:
    """Any action, whatever is seen."""
    env.action_space.seed(seed)
    return lambda _: env.action_space.sample()
