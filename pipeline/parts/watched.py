"""The attention of a policy's seeds over recorded frames, in time order (rl/watch.py)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets import envs
from datasets.errors import FoveaError
from datasets.saliency import Indices
from datasets.shards import FrameSet
from pipeline.parts.maps import check_size
from pipeline.parts.policies import trained_policy
from pipeline.parts.sources import FloatMaps, Source
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


@dataclass(frozen=True)
class Watched:
    """A seed of a policy on recorded frames."""

    folder: Path
    seed: int
    step: int

    @cached_property
    def policy(self) -> Policy:
        """Loaded at the first use."""
        return trained_policy(self.folder, self.seed, self.step)

    def __call__(self, frames: FrameSet, indices: Indices) -> FloatMaps:
        """Maps of frames of one stream; the policy processes all frames up to the last of them."""
        stream = int(frames.stream[indices[0]])
        maps = watch(self.policy, frames, stream)
        everything = np.flatnonzero(frames.stream == stream)
        played = everything[everything <= indices[-1]]
        rows = np.isin(played, indices)
        # zip() in this order processes no frame after the last one.
        return np.stack(
            [saliency for use, saliency in zip(rows.tolist(), maps, strict=False) if use]
        )
