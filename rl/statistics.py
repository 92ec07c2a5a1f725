"""Aggregate scores: interquartile mean, and bootstrap intervals over seeds and their episodes.

Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (2021),
section 4. They resample runs. Here each run (seed) also has many episodes, which are resampled
within it, so that the interval includes both variances. Without episodes, intervals are Student's,
over the seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Scores = NDArray[np.float64]


def interquartile_mean(scores: Scores) -> float:
    """Mean of the middle half of all scores: ⌊n/4⌋ are trimmed at either end (scipy's trim)."""
    values = np.sort(np.asarray(scores, dtype=np.float64), axis=None)
    if not len(values):
        raise ValueError("scores: empty, must be at least one")
    trim = len(values) // 4
    return float(values[trim : len(values) - trim].mean())


def bootstrap_interval(
    episodes_per_seed: Sequence[Scores],
    statistic: Callable[[Scores], float] = interquartile_mean,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of `statistic` over all scores, by the two-level bootstrap.

    A resample has as many seeds as there are, sampled with replacement, and of each as many
    episodes as it has. With a single seed the interval does not include the variance of seeds, and
    with one episode a seed not that of episodes: a report must say so.
    """
    seeds = [np.asarray(scores, dtype=np.float64).ravel() for scores in episodes_per_seed]
    counts = np.array([len(scores) for scores in seeds])
    if not len(counts) or not counts.all():
        raise ValueError(f"episodes_per_seed: {counts.tolist()}, each seed needs at least one")
    scores, starts = np.concatenate(seeds), counts.cumsum() - counts
    generator = np.random.default_rng(seed)
    seed_indices = generator.integers(len(seeds), size=(resamples, len(seeds)))
    # As many episodes as the largest seed has; those beyond a smaller seed's number are left out.
    sizes, most = counts[seed_indices][..., None], counts.max()
    place = generator.integers(sizes, size=(*seed_indices.shape, most))
    rows = scores[starts[seed_indices][..., None] + place]
    values = [statistic(row[real]) for row, real in zip(rows, np.arange(most) < sizes, strict=True)]
    return _percentiles(np.array(values), level)


def mean_interval(
    episodes_per_seed: Sequence[Scores],
    statistic: Callable[[Scores], float],
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the seeds' mean `statistic`, by the two-level bootstrap.

    For means over equally many episodes this equals `bootstrap_interval`; a mean of the seeds'
    medians is not the median of all episodes.
    """
    generator = np.random.default_rng(seed)
    return _percentiles(_resample(episodes_per_seed, statistic, resamples, generator), level)


def difference_interval(
    ours: Sequence[Scores],
    theirs: Sequence[Scores],
    statistic: Callable[[Scores], float],
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the difference of the seeds' mean `statistic`, `ours` - `theirs`.

    As `mean_interval`; the two sides are resampled independently.
    """
    generator = np.random.default_rng(seed)
    mine = _resample(ours, statistic, resamples, generator)
    return _percentiles(mine - _resample(theirs, statistic, resamples, generator), level)


def ratio_interval(
    ours: Sequence[Scores],
    theirs: Sequence[Scores],
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the ratio of two means over seeds, of the same seeds on both sides.

    A resample has the same seeds on both sides, and of each its own episodes. NaN if the
    denominator of a resample is not positive, where a ratio has no meaning.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"ours and theirs: {len(ours)} and {len(theirs)} seeds, must be the same")
    if not ours or not all(len(scores) for scores in (*ours, *theirs)):
        raise ValueError("ours and theirs: must have a seed, and each seed an episode")
    generator = np.random.default_rng(seed)
    chosen = generator.integers(len(ours), size=(resamples, len(ours)))
    means = np.empty((2, *chosen.shape))
    for side, seeds in enumerate((ours, theirs)):
        for index, scores in enumerate(seeds):
            places = chosen == index
            rows = generator.choice(np.asarray(scores, np.float64), (places.sum(), len(scores)))
            means[side][places] = rows.mean(1)
    top, bottom = means.mean(2)
    if not (bottom > 0).all():
        return math.nan, math.nan
    return _percentiles(top / bottom, level)


def welch_interval(ours: Scores, theirs: Scores, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of two means of independent values (n,) and (m,), by Welch's t.

    For seeds without episodes to resample. If a side has a single value, the interval is NaN.
    """
    if min(len(ours), len(theirs)) < 2:
        return math.nan, math.nan
    parts = [(side.var(ddof=1) / len(side), len(side) - 1) for side in (ours, theirs)]
    error = math.sqrt(sum(variance for variance, _ in parts))
    freedom = error**4 / sum(variance**2 / n for variance, n in parts) if error else 1.0
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    difference = float(ours.mean() - theirs.mean())
    return difference - reach, difference + reach


def student_interval(values: Scores, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of independent values (n,), by Student's t; NaN for a single value."""
    if len(values) < 2:
        return math.nan, math.nan
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    return float(values.mean()) - reach, float(values.mean()) + reach


def _resample(
    episodes_per_seed: Sequence[Scores],
    statistic: Callable[[Scores], float],
    resamples: int,
    generator: np.random.Generator,
) -> Scores:
    """The seeds' mean statistic in each resample, (resamples,)."""
    if not episodes_per_seed or not all(len(scores) for scores in episodes_per_seed):
        raise ValueError("episodes_per_seed: each side needs a seed, each seed an episode")
    seed_indices = generator.integers(
        len(episodes_per_seed), size=(resamples, len(episodes_per_seed))
    )
    values = np.empty(seed_indices.shape)
    for index, scores in enumerate(episodes_per_seed):
        places = seed_indices == index
        size = (int(places.sum()), len(scores))
        rows = generator.choice(np.asarray(scores, dtype=np.float64), size)
        values[places] = [statistic(row) for row in rows]
    return np.asarray(values.mean(axis=1))


def _percentiles(values: Scores, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level: {level}, must be between 0 and 1")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
