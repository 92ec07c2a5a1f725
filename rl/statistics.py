"""Aggregate scores: interquartile mean and its stratified bootstrap interval.

Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (2021),
section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


def interquartile_mean(scores: Scores) -> float:
    """Mean of the middle half of all scores: ⌊n/4⌋ are cut from either end (scipy's trim)."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=None)
    if not len(ordered):
        raise ValueError("scores: empty, at least one is needed")
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def bootstrap_interval(
    strata: Sequence[Scores],
    statistic: Callable[[Scores], float] = interquartile_mean,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of `statistic` over all scores, each stratum resampled on its own.

    A stratum is what is compared on equal terms: one task's scores, or one seed's games. With
    one score a stratum the interval is that point: say so beside it.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: {level}, must be between 0 and 1")
    generator = np.random.default_rng(seed)
    columns = [np.asarray(stratum, dtype=np.float64).ravel() for stratum in strata]
    values = [
        statistic(np.concatenate([generator.choice(column, len(column)) for column in columns]))
        for _ in range(resamples)
    ]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
