"""Shuffled AUC of a frame: the exact closed form against a hundred random splits.

The baseline is plain code of the definition that Nikulin et al. (2019) used: a hundred times, as
many negatives as there are gaze samples, sampled from ten other frames' fixations, and the area
under the ROC of their ranks. Its mean over splits estimates the closed form. Maps are of 210x160
pixels with ties, as a 7x7 mask has after its upsampling; 400 gaze samples a frame lie about three
places. One thread, interleaved rounds, CPU time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from pretrain.metrics.fixations import SIZE, Fixations, Map, fixation_map, shuffled_auc

ROUNDS, CALLS = 9, 50  # calls of the closed form in a round; the baseline has one
SPLITS, OTHERS = 100, 10
SAMPLES, PLACES, SPREAD = 400, 3, 6.0  # of gaze in a frame; pixels


@dataclass(frozen=True)
class Frame:
    """A map, its gaze samples and those of ten other frames."""

    saliency: Map
    fixations: Fixations
    others: Fixations


def run() -> dict[str, Any]:
    """Median milliseconds a frame, of the rounds' ratios, and the largest difference in standard
    errors of the hundred splits.
    """
    rng = np.random.default_rng(0)
    frames = [random_frame(rng) for _ in range(ROUNDS + 1)]
    ours, plain, differences = [], [], []
    for frame in frames:
        parts = frame.saliency, frame.fixations, frame.others
        exact, own = _milliseconds(partial(shuffled_auc, *parts), CALLS)
        splits, other = _milliseconds(partial(sampled_aucs, *parts), 1)
        ours.append(own)
        plain.append(other)
        differences.append(abs(exact - splits.mean()) / (splits.std(ddof=1) / SPLITS**0.5))
    return {
        "what": "shuffled AUC of a frame, one thread, CPU time",
        "rounds": ROUNDS,
        "ours_ms": statistics.median(ours[1:]),  # the first is the warm-up
        "splits_ms": statistics.median(plain[1:]),
        "ratio": statistics.median(b / a for a, b in zip(ours[1:], plain[1:], strict=True)),
        "largest_difference_in_standard_errors": max(differences),
    }


def random_frame(rng: np.random.Generator) -> Frame:
    """A map of 7x7 values and gaze about random places."""
    cells = rng.random((7, 7)).astype(np.float32)
    saliency = np.kron(cells, np.ones((30, 23), np.float32))[: SIZE[0], : SIZE[1]]
    others = np.sum([_gaze(rng) for _ in range(OTHERS)], axis=0)
    return Frame(saliency, _gaze(rng), others)


def sampled_aucs(
    saliency: Map, fixations: Fixations, others: Fixations, splits: int = SPLITS, seed: int = 42
) -> NDArray[np.float64]:
    """The area under the ROC of each random split (splits,)."""
    rng = np.random.RandomState(seed)
    positive = np.repeat(saliency.ravel(), fixations.ravel())
    share, count = others.ravel() / others.sum(), len(positive)
    areas = np.empty(splits)
    for split in range(splits):
        negative = saliency.ravel()[rng.choice(saliency.size, count, p=share)]
        ranks = rankdata(np.concatenate([positive, negative]))[:count]
        areas[split] = (ranks.sum() - count * (count + 1) / 2) / count**2
    return areas


def _gaze(rng: np.random.Generator) -> NDArray[np.int64]:
    centres = rng.random((PLACES, 2)) * SIZE[::-1]
    points = centres[rng.integers(PLACES, size=SAMPLES)] + rng.normal(0, SPREAD, (SAMPLES, 2))
    return fixation_map(points, *SIZE)


def _milliseconds(work: Callable[[], Any], calls: int) -> tuple[Any, float]:
    start = time.process_time()
    for _ in range(calls):
        result = work()
    return result, 1000 * (time.process_time() - start) / calls


if __name__ == "__main__":
    for key, value in run().items():
        print(key, value)
