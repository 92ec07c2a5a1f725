"""Aggregate scores: interquartile mean, and bootstrap intervals over seeds and their episodes.

Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (2021),
section 4. They resample runs. Here each run (seed) also has many episodes, which are resampled
within it, so that the interval has both spreads. Where there are no episodes, an interval is
Student's, over the seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Scores = NDArray[np.float64]


def interquartile_mean(scores: Scores) -> float:
    """Mean of the middle half of all scores: ⌊n/4⌋ are cut from either end (scipy's trim)."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=None)
    if not len(ordered):
        raise ValueError("scores: empty, at least one is needed")
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def bootstrap_interval(
    games_per_seed: Sequence[Scores],
    statistic: Callable[[Scores], float] = interquartile_mean,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of `statistic` over all scores, by the two-level bootstrap.

    Each resample has as many seeds as there are, sampled with replacement, and of each of these as
    many episodes as that one played. With a single seed the interval has no spread of the seeds,
    with one episode a seed none of the episodes: say so beside it.
    """
    seeds = [np.asarray(games, dtype=np.float64).ravel() for games in games_per_seed]
    counts = np.array([len(games) for games in seeds])
    if not len(counts) or not counts.all():
        raise ValueError(f"games_per_seed: {counts.tolist()} games, each seed needs at least one")
    scores, starts = np.concatenate(seeds), counts.cumsum() - counts
    generator = np.random.default_rng(seed)
    seed_indices = generator.integers(len(seeds), size=(resamples, len(seeds)))
    # An episode for each place of the largest seed; places that a smaller seed lacks are left out.
    played, most = counts[seed_indices][..., None], counts.max()
    place = generator.integers(played, size=(*seed_indices.shape, most))
    resampled = scores[starts[seed_indices][..., None] + place]
    values = [
        statistic(row[real]) for row, real in zip(resampled, np.arange(most) < played, strict=True)
    ]
    return _percentiles(np.array(values), level)


def mean_interval(
    games_per_seed: Sequence[Scores],
    statistic: Callable[[Scores], float],
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the seeds' mean `statistic`, by the two-level bootstrap.

    For means of equally many episodes this is `bootstrap_interval`'s; a mean of the seeds' medians
    is not the median of all episodes.
    """
    generator = np.random.default_rng(seed)
    return _percentiles(_resampled(games_per_seed, statistic, resamples, generator), level)


def difference_interval(
    ours: Sequence[Scores],
    theirs: Sequence[Scores],
    statistic: Callable[[Scores], float],
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of how far the seeds' mean `statistic` of `ours` lies above `theirs`.

    As `mean_interval`, each side resampled on its own.
    """
    generator = np.random.default_rng(seed)
    mine = _resampled(ours, statistic, resamples, generator)
    return _percentiles(mine - _resampled(theirs, statistic, resamples, generator), level)


def welch_interval(ours: Scores, theirs: Scores, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of two means of independent numbers (n,) and (m,), by Welch's t.

    For what has seeds but no games to resample. A side with a single number has no interval: NaN.
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
    """Interval of the mean of independent numbers (n,), by Student's t; of a single one NaN."""
    if len(values) < 2:
        return math.nan, math.nan
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    return float(values.mean()) - reach, float(values.mean()) + reach


def _resampled(
    games_per_seed: Sequence[Scores],
    statistic: Callable[[Scores], float],
    resamples: int,
    generator: np.random.Generator,
) -> Scores:
    """The seeds' mean statistic in each resample, (resamples,)."""
    if not games_per_seed or not all(len(games) for games in games_per_seed):
        raise ValueError("games_per_seed: each side needs a seed, each seed a game")
    seed_indices = generator.integers(len(games_per_seed), size=(resamples, len(games_per_seed)))
    values = np.empty(seed_indices.shape)
    for index, games in enumerate(games_per_seed):
        places = seed_indices == index
        size = (int(places.sum()), len(games))
        played = generator.choice(np.asarray(games, dtype=np.float64), size)
        values[places] = [statistic(row) for row in played]
    return np.asarray(values.mean(axis=1))


def _percentiles(values: Scores, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level: {level}, must be between 0 and 1")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
