"""The attention of a policy's seeds over recorded frames, in time order (rl/watch.py)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from datasets import envs
from datasets.errors import FoveaError
from datasets.saliency import Indices
from datasets.shards import FrameSet
from pipeline.parts.maps import FloatMaps, check_size
from pipeline.parts.policies import trained_policy
from pipeline.parts.sources import Source
from rl.policy import Policy, checkpoints, read_spec
from rl.watch import watch


def seeds(folder: Path, frames: FrameSet) -> list[Source]:
    """A source for each seed of a policy artifact that has weights: the last ones.

    Raises FoveaError if no seed has any, or the policy is for images of another size.
    """
    check_size(envs.image_shape(read_spec(folder).env), frames, folder)
    numbers = sorted(int(path.name[5:]) for path in folder.glob("seed-*"))
    steps = {seed: [step for step, _ in checkpoints(folder / f"seed-{seed}")] for seed in numbers}
    if not any(steps.values()):
        raise FoveaError(f"{folder}: no seed has weights; train it again")
    return [Source(seed, Watched(folder, seed, own[-1])) for seed, own in steps.items() if own]


class Watched:
    """A seed of a policy on recorded frames; its memory stays from one call to the next."""

    def __init__(self, folder: Path, seed: int, step: int) -> None:
        """The weights are loaded at the first call."""
        self._load = partial(trained_policy, folder, seed, step)
        self._policy: Policy | None = None
        self._last = -1  # the frame that was processed last
        self._ahead: Iterator[tuple[int, FloatMaps]] = iter(())  # the rest of its stream

    def __call__(self, frames: FrameSet, indices: Indices) -> FloatMaps:
        """Maps of frames of one stream; the policy processes all frames up to the last of them.

        Later frames of the same stream than those before go on from there.
        """
        streams = frames.stream[[max(self._last, 0), indices[0]]]
        if self._last < 0 or streams[0] != streams[1] or indices[0] <= self._last:
            self._ahead = self._begin(frames, int(streams[1]))
        chosen, maps = set(indices.tolist()), []
        for index, saliency in self._ahead:
            self._last = index
            if index in chosen:
                maps.append(saliency)
            if index == indices[-1]:
                break
        return np.stack(maps)

    def _begin(self, frames: FrameSet, stream: int) -> Iterator[tuple[int, FloatMaps]]:
        """The frames of a stream, each with its map."""
        if self._policy is None:
            self._policy = self._load()
        numbers = np.flatnonzero(frames.stream == stream).tolist()
        return zip(numbers, watch(self._policy, frames, stream), strict=True)
