"""Which frames of a set are annotated: random ones, as ViSaRL's 30, and the same ones ever after.

The order is that of a hash of seed and key. So the first ten frames of thirty are those that ten
would have been, and neither another version of a library nor a set that grew samples other ones.
(On a set that grew the simulated annotator clicks elsewhere: its clicks are sampled by the index.)
"""

from __future__ import annotations

import hashlib

import numpy as np

from datasets.shards import FrameSet, member_key


def order(frames: FrameSet, seed: int) -> list[int]:
    """Every index into `frames`, at random."""
    hashes = [hashlib.sha256(f"{seed}/{key}".encode()).digest() for key in keys(frames)]
    return sorted(range(len(frames)), key=hashes.__getitem__)


def keys(frames: FrameSet) -> list[str]:
    """The name of each frame: its stream, and its number there."""
    starts = np.flatnonzero(np.diff(frames.stream, prepend=-1))  # streams are contiguous
    numbers = np.arange(len(frames)) - np.repeat(starts, np.diff(starts, append=len(frames)))
    return [member_key(*pair) for pair in zip(frames.stream, numbers, strict=True)]


def digest(frames: FrameSet, index: int) -> str:
    """The SHA-256 of a frame's pixels, in hexadecimal."""
    return hashlib.sha256(frames.images[index].tobytes()).hexdigest()
