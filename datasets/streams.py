"""Independent streams of frames, played and written by whichever processes there are.

Each stream has its own environment and its own policy, both seeded by (seed, index) alone, so the
shards have the same bytes whoever runs them. A file of `sources/` says what the policy is.
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
from datasets.sealed import kept
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
        """Write the shards that `folder` does not have yet, or not as they were written.

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
        """The stream's frames, played now."""
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
    """Write the shards `{index:03d}-{shard:05d}.tar` that `folder` does not have yet.

    A shard that does not match its digest is written again, and a line says so. `frames` gives the
    stream's `count` frames from any number on. `progress` is called after each shard with its
    number of frames, those that were there already included.
    """
    starts = range(0, count, SHARD)
    paths = [folder / f"{index:03d}-{shard:05d}.tar" for shard in range(len(starts))]
    missing = [path for path in paths if not kept(path)]
    there = paths.index(missing[0]) if missing else len(paths)
    if there:
        progress(min(count, there * SHARD))
    if not missing:
        return
    following = frames(starts[there])
    for path, start in list(zip(paths, starts, strict=True))[there:]:
        shard = list(islice(following, SHARD))
        if path in missing:
            write_shard(path, shard, stream=index, start=start)
        progress(len(shard))


def shared_out(env: str, policy: Policy, *, seed: int, streams: int, count: int) -> list[Stream]:
    """`count` frames of `env` in equal shares, the first streams one frame longer where it must be.

    Of several games (`envs.members`) each gives as many frames: stream i plays game i modulo their
    number. Raises FoveaError for an unknown environment, ValueError for a count below 1 and for
    fewer streams than games.
    """
    games = envs.members(env)
    if count < 1:
        raise ValueError(f"count: {count}, must be at least 1")
    if streams < len(games):
        raise ValueError(f"streams: {streams}, must be at least 1 for each of {len(games)} games")
    counts = [0] * streams
    for game, of_game in enumerate(_shares(count, len(games))):
        mine = range(game, streams, len(games))
        for index, share in zip(mine, _shares(of_game, len(mine)), strict=True):
            counts[index] = share
    return [
        Stream(games[index % len(games)], policy, seed, index, n)
        for index, n in enumerate(counts)
        if n
    ]


def _shares(count: int, parts: int) -> list[int]:
    """`count` in equal parts, the first ones larger by one where it must be."""
    share, rest = divmod(count, parts)
    return [share + (part < rest) for part in range(parts)]
