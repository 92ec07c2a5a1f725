"""Reading frames: shards decoded into memory against np.memmap of the same raw images.

Two measurements: loading a whole data set into memory, and reading random batches after that (from
our memory, against a memmap whose pages are in the system's cache).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.shards import read_frames
from datasets.sources.random import Config, streams

GAME = "atari/Frostbite"
ROUNDS, FRAMES, BATCH = 7, 2048, 64


def run() -> dict[str, object]:
    """Median frames/s of interleaved rounds, and of the rounds' ratios (ours / memmap)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stream in streams(Config(streams=2), GAME, FRAMES):
            stream.run(folder, lambda count: None)
        images = read_frames(folder).images
        images.tofile(folder / "raw")
        raw = np.memmap(folder / "raw", np.uint8, "r", shape=images.shape)
        order = np.random.default_rng(0).permutation(FRAMES).reshape(-1, BATCH)
        whole = [
            (_rate(lambda: read_frames(folder).images), _rate(lambda: np.array(raw)))
            for _ in range(ROUNDS)
        ]
        batches = [
            (_rate(lambda: _epoch(images, order)), _rate(lambda: _epoch(raw, order)))
            for _ in range(ROUNDS)
        ]
        size = sum(path.stat().st_size for path in folder.glob("*.tar"))
    return {
        "what": f"{GAME}, {FRAMES} frames, frames/s, against np.memmap of raw images",
        "bytes_per_frame": size / FRAMES,
        "bytes_per_frame_memmap": images[0].nbytes,
        **_figures("load_all", whole),
        **_figures("random_batches", batches),
        "rounds": ROUNDS,
    }


def _epoch(images: NDArray[np.uint8], order: NDArray[np.int64]) -> None:
    for batch in order:
        np.asarray(images[batch])


def _rate(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return FRAMES / (time.perf_counter() - start)


def _figures(name: str, rounds: list[tuple[float, float]]) -> dict[str, object]:
    return {
        name: statistics.median(ours for ours, _ in rounds),
        f"{name}_memmap": statistics.median(theirs for _, theirs in rounds),
        f"{name}_ratio": statistics.median(ours / theirs for ours, theirs in rounds),
    }
