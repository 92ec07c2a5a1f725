"""Predicted saliency against annotated maps: F-measure and mean absolute error.

As in ViSaRL (Tables IV to VI), which does not say how maps are made binary. Here a pixel counts as
salient from 0.5 of the true map on; precision and recall are averaged over the frames at each
threshold, and F weighs precision higher (beta^2 = 0.3, Achanta et al. 2009). Both common thresholds
are used: the best of 256 for all frames together, and twice each predicted map's mean. The absolute
error is that of the soft maps.

Most of a map is zero, so the all-zero map has an error of 0.010 to 0.014 on simulated clicks (means
of 200 frames of a task, RESULTS.md). So an error must be compared with a trivial predictor's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BETA2 = 0.3
THRESHOLDS = 256  # k / 255 for k = 0, ..., 255
SALIENT = 128  # the smallest of 0..255 that is at least half

Truth = NDArray[np.uint8]  # (N, H, W)
Predicted = NDArray[np.float32]  # (N, H, W) in [0, 1]


@dataclass(frozen=True)
class Scores:
    """F at the best threshold and at twice the mean, and the mean absolute error."""

    f_max: float | None  # None where no frame has a salient pixel
    f_adaptive: float | None
    mae: float


def scores(predicted: Predicted, truth: Truth) -> Scores:
    """Compare maps; frames without a salient pixel have no recall and count for the error alone."""
    error = float(np.abs(predicted - truth / np.float32(255)).mean(dtype=np.float64))
    usable = (truth >= SALIENT).any((1, 2))
    if not usable.any():
        return Scores(None, None, error)
    maps, salient = predicted[usable], truth[usable] >= SALIENT
    precision, recall = _at_each_threshold(maps, salient)
    best = float(f_measure(precision.mean(0), recall.mean(0)).max())
    twice = np.minimum(2 * maps.mean((1, 2), keepdims=True, dtype=np.float64), 1)
    positive = maps >= twice
    hits = (positive & salient).sum((1, 2))
    precision = hits / np.maximum(positive.sum((1, 2)), 1)
    recall = hits / salient.sum((1, 2))
    adaptive = float(f_measure(precision.mean(keepdims=True), recall.mean(keepdims=True))[0])
    return Scores(best, adaptive, error)


def f_measure(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    """(1 + beta^2) P R / (beta^2 P + R), zero where both are."""
    below = BETA2 * precision + recall
    f: NDArray[np.float64] = (1 + BETA2) * precision * recall / np.where(below > 0, below, 1)
    return f


def _at_each_threshold(
    maps: Predicted, salient: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall (N, THRESHOLDS) of the pixels at or above each; 0 without pixels."""
    level = np.floor(maps.astype(np.float64) * (THRESHOLDS - 1)).astype(np.int64)
    rows = np.arange(len(maps))[:, None, None] * THRESHOLDS

    def at_least(pixels: NDArray[np.bool_]) -> NDArray[np.int64]:
        counts = np.bincount((rows + level)[pixels], minlength=len(maps) * THRESHOLDS)
        return counts.reshape(-1, THRESHOLDS)[:, ::-1].cumsum(1)[:, ::-1]

    positive, hits = at_least(np.ones_like(salient)), at_least(salient)
    return hits / np.maximum(positive, 1), hits / salient.sum((1, 2))[:, None]
