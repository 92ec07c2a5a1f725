"""Pairs of frames of one episode: a target, and the source that it is reconstructed from.

As in Transporter (Kulkarni et al. 2019) and self-supervised attention (Wu et al. 2021): two
different frames, at most `max_gap` steps apart, in either order. Wu et al. sample both from a
buffer of the last 60 steps, which may include the end of an episode; here a pair never does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.errors import FoveaError
from datasets.shards import FrameSet
from pretrain.schedule import noise

Rows = NDArray[np.int64]


class Pairs:
    """The frames of a data set that have partners, and a random partner for each at each step."""

    def __init__(self, frames: FrameSet, max_gap: int, seed: int) -> None:
        """Raises FoveaError where no frame has a partner."""
        self._seed = seed
        self._first, self._last = _window(frames, max_gap)
        self.targets = np.flatnonzero(self._last > self._first)
        if not len(self.targets):
            raise FoveaError(
                f"max_gap: {max_gap}, but among {len(frames)} frames no two of one episode are so "
                "near; collect more frames, or raise max_gap"
            )

    def sources(self, targets: Rows, step: int) -> Rows:
        """A source for each of a whole batch's targets (B,): any other frame of its window."""
        first, last = self._first[targets], self._last[targets]
        at = first + np.floor(noise(self._seed, step).random(len(targets)) * (last - first))
        return np.asarray(at + (at >= targets), np.int64)  # skips the target itself


def _window(frames: FrameSet, max_gap: int) -> tuple[Rows, Rows]:
    """First and last row (N,) of the same episode within `max_gap` steps of each frame."""
    count = len(frames)
    begins = np.flatnonzero(
        np.diff(frames.stream, prepend=-1) | np.diff(frames.episode, prepend=-1)
    )
    first, last = np.empty(count, np.int64), np.empty(count, np.int64)
    for begin, end in zip(begins, np.append(begins[1:], count), strict=True):
        steps = frames.step[begin:end]
        first[begin:end] = begin + np.searchsorted(steps, steps - max_gap, "left")
        last[begin:end] = begin + np.searchsorted(steps, steps + max_gap, "right") - 1
    return first, last
