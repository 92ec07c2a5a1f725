"""Which frames of a set are annotated: a random sample, as ViSaRL's 30, and always the same one.

Frames are ordered by a hash of seed and key. So the first ten of thirty frames are the sample of
ten. Neither another version of a library nor further frames change the order of these frames.
(The simulated annotator samples its clicks by a frame's index, so in a larger set they differ.)
"""

from __future__ import annotations

import hashlib

import numpy as np

from datasets.shards import FrameSet, member_key


def order(frames: FrameSet, seed: int) -> list[int]:
    """Every index into `frames`, in random order."""
    hashes = [hashlib.sha256(f"{seed}/{key}".encode()).digest() for key in keys(frames)]
    return sorted(range(len(frames)), key=hashes.__getitem__)


def keys(frames: FrameSet) -> list[str]:
    """The name of each frame: its stream, and its number in the stream."""
    starts = np.flatnonzero(np.diff(frames.stream, prepend=-1))  # streams are contiguous
    numbers = np.arange(len(frames)) - np.repeat(starts, np.diff(starts, append=len(frames)))
    return [member_key(*pair) for pair in zip(frames.stream, numbers, strict=True)]


def digest(frames: FrameSet, index: int) -> str:
    """The SHA-256 of a frame's pixels, in hexadecimal."""
    return hashlib.sha256(frames.images[index].tobytes()).hexdigest()
