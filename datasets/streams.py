"""Independent streams of frames, played and written by any number of processes.

Each stream has its own environment and its own policy, both seeded by (seed, index) alone, so the
shards have the same bytes in any process. A file of `sources/` defines the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import numpy as np

from datasets import envs
from datasets.checked import Range
from datasets.frame import Frame
from datasets.sealed import keep_if_sound
from datasets.shards import write_shard

SHARD = 1024  # frames in a shard

Streams = Annotated[int, Range(1, 999)]  # of a source; their numbers have three digits
Act = Callable[[dict[str, Any]], Any]  # an observation's info -> the action to take
Policy = Callable[[gymnasium.Env[Any, Any], int], Act]  # environment, seed -> how to act in it


@dataclass(frozen=True)
class Stream:
    """One environment's share of the frames. Picklable: run() it in any process."""

    env: str  # "atari/Frostbite"
    policy: Policy
    seed: int
    index: int
    count: int
    first_life: bool = False  # whether an episode ends with the first life

    def run(self, folder: Path, progress: Callable[[int], None]) -> None:
        """Write the shards that are missing or damaged in `folder`.

        After an interruption the stream is played again from its start up to the first missing
        shard, which needs no state on disk.
        """
        write_stream(
            lambda start: islice(self.frames(), start, None),
            folder,
            self.index,
            self.count,
            progress,
        )

    def frames(self) -> Iterator[Frame]:
        """The stream's frames, played in this call."""
        env = envs.single(self.env, seed=self.seed, index=self.index)
        names = envs.frame_info(self.env)
        # The 1 keeps the actions' random numbers apart from those of the environment.
        (seed,) = np.random.SeedSequence((self.seed, self.index, 1)).generate_state(1)
        act = self.policy(env, int(seed))
        episode, step = 0, 0
        image, info = env.reset()
        for _ in range(self.count):
            action, lives = act(info), info.get("lives")
            columns = {name: np.asarray(info[name]) for name in names}
            following, reward, terminated, truncated, info = env.step(action)
            truncated |= self.first_life and not terminated and info["lives"] < lives
            yield Frame(image, action, float(reward), terminated, truncated, episode, step, columns)
            image, step = following, step + 1
            if terminated or truncated:
                image, info = env.reset()
                episode, step = episode + 1, 0
        env.close()


def write_stream(
    frames: Callable[[int], Iterator[Frame]],
    folder: Path,
    index: int,
    count: int,
    progress: Callable[[int], None],
) -> None:
    """Write the shards `{index:03d}-{shard:05d}.tar` that are missing or damaged in `folder`.

    A line says so where a shard does not match its digest. `frames` gives the stream's `count`
    frames from any number on. `progress` is called after each shard with its number of frames, and
    once with that of all shards before the first missing one.
    """
    starts = range(0, count, SHARD)
    paths = [folder / f"{index:03d}-{shard:05d}.tar" for shard in range(len(starts))]
    missing = [path for path in paths if not keep_if_sound(path)]
    first = paths.index(missing[0]) if missing else len(paths)
    if first:
        progress(min(count, first * SHARD))
    if not missing:
        return
    following = frames(starts[first])
    for path, start in list(zip(paths, starts, strict=True))[first:]:
        shard = list(islice(following, SHARD))
        if path in missing:
            write_shard(path, shard, stream=index, start=start)
        progress(len(shard))


def equal_shares(env: str, policy: Policy, *, seed: int, streams: int, count: int) -> list[Stream]:
    """`count` frames of `env` in equal shares; the first streams have the remainder, one each.

    Several games (`envs.members`) have equal shares too: stream i plays game i modulo their number.
    Raises FoveaError for an unknown environment, ValueError for a count below 1 and for fewer
    streams than games.
    """
    games = envs.members(env)
    if count < 1:
        raise ValueError(f"count: {count}, must be at least 1")
    if streams < len(games):
        raise ValueError(f"streams: {streams}, must be at least 1 for each of {len(games)} games")
    counts = [0] * streams
    for game, frames in enumerate(_shares(count, len(games))):
        players = range(game, streams, len(games))
        for index, share in zip(players, _shares(frames, len(players)), strict=True):
            counts[index] = share
    return [
        Stream(games[index % len(games)], policy, seed, index, n)
        for index, n in enumerate(counts)
        if n
    ]


def _shares(count: int, parts: int) -> list[int]:
    """`count` in equal parts; the first ones have the remainder, one each."""
    share, rest = divmod(count, parts)
    return [share + (part < rest) for part in range(parts)]
