"""Aggregates of scores against scipy, and the reference table against the existing games."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from datasets.envs import games
from rl import statistics


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10, 50, 101])
def test_interquartile_mean_is_scipys_trimmed_mean(count: int) -> None:
    scores = np.random.default_rng(count).normal(size=count)
    want = stats.trim_mean(scores, 0.25)
    assert statistics.interquartile_mean(scores) == pytest.approx(want)


def test_interquartile_mean_ignores_an_outlier() -> None:
    assert statistics.interquartile_mean(np.array([1.0, 2.0, 3.0, 1e9])) == 2.5


def test_bootstrap_of_a_mean_is_the_normal_interval() -> None:
    scores = np.random.default_rng(0).normal(10, 2, size=400)
    low, high = statistics.bootstrap_interval([scores], lambda x: float(x.mean()))
    half = 1.96 * scores.std() / 20
    assert (low, high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.03)


def mean(scores: statistics.Scores) -> float:
    return float(scores.mean())


def test_bootstrap_is_the_plain_loop_with_the_same_samples() -> None:
    """Seeds of 3, 1 and 4 episodes; a seed with fewer uses the first samples of its row."""
    seeds = [np.array([1.0, 5.0, 2.0]), np.array([40.0]), np.array([7.0, 8.0, 20.0, 9.0])]
    generator, values = np.random.default_rng(3), []
    indices = generator.integers(3, size=(200, 3))
    most = np.array([[[len(seeds[index])] for index in row] for row in indices])
    places = generator.integers(most, size=(200, 3, 4))
    for row, place in zip(indices, places, strict=True):
        games: list[float] = []
        for index, game in zip(row, place, strict=True):
            for number in game[: len(seeds[index])]:
                games.append(seeds[index][number])
        values.append(statistics.interquartile_mean(np.array(games)))
    want = np.quantile(values, [0.05, 0.95])
    got = statistics.bootstrap_interval(seeds, level=0.9, resamples=200, seed=3)
    assert got == pytest.approx(tuple(want))


def test_seeds_that_differ_widen_the_interval() -> None:
    """Between seeds without variance only the choice of seeds varies: 0 to 2 of the 2."""
    seeds = [np.zeros(10), np.full(10, 100.0)]
    assert statistics.bootstrap_interval(seeds, mean) == (0, 100)


def test_the_interval_covers_the_truth_where_seeds_differ() -> None:
    """Ten seeds' means are N(0, 1), their episodes N(mean, 0.1): an interval over episodes alone
    would rarely cover the truth.
    """
    random, covered, alone = np.random.default_rng(0), 0, 0
    for trial in range(100):
        seeds = list(random.normal(size=(10, 1)) + 0.1 * random.normal(size=(10, 20)))
        low, high = statistics.bootstrap_interval(seeds, mean, resamples=200, seed=trial)
        covered += low <= 0 <= high
        low, high = statistics.bootstrap_interval([np.concatenate(seeds)], mean, resamples=200)
        alone += low <= 0 <= high
    assert 83 <= covered <= 99  # percentile intervals of ten are a little short
    assert alone < 50


@pytest.mark.parametrize(("n", "m"), [(3, 3), (5, 3), (2, 9)])
def test_students_and_welchs_intervals_are_scipys(n: int, m: int) -> None:
    generator = np.random.default_rng(n)
    ours, theirs = generator.normal(1.0, 3.0, n), generator.normal(0.0, 0.5, m)
    both = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose(statistics.welch_interval(ours, theirs), both)
    one = stats.ttest_1samp(ours, 0).confidence_interval(0.95)
    np.testing.assert_allclose(statistics.student_interval(ours), one)


def test_students_intervals_of_equal_and_of_single_numbers() -> None:
    assert statistics.welch_interval(np.full(3, 2.0), np.full(3, 0.5)) == (1.5, 1.5)
    assert np.isnan(statistics.welch_interval(np.ones(1), np.ones(3))).all()
    assert np.isnan(statistics.student_interval(np.ones(1))).all()


def test_same_seed_same_interval() -> None:
    strata = [np.random.default_rng(1).normal(size=20)]
    first = statistics.bootstrap_interval(strata, seed=3, resamples=100)
    assert first == statistics.bootstrap_interval(strata, seed=3, resamples=100)
    assert first != statistics.bootstrap_interval(strata, seed=4, resamples=100)


def test_impossible_input_is_refused() -> None:
    with pytest.raises(ValueError, match="scores"):
        statistics.interquartile_mean(np.array([]))
    with pytest.raises(ValueError, match="episodes_per_seed"):
        statistics.bootstrap_interval([np.ones(3), np.array([])])
    with pytest.raises(ValueError, match="episodes_per_seed"):
        statistics.bootstrap_interval([])
    with pytest.raises(ValueError, match="level"):
        statistics.bootstrap_interval([np.ones(3)], level=1.0)


def test_reference_scores_are_of_existing_games() -> None:
    path = Path(statistics.__file__).parent / "reference_scores.json"
    table = json.loads(path.read_text())
    assert table["source"]
    assert len(table["games"]) == 57
    assert set(table["games"]) <= set(games())
    assert all(row["human"] > row["random"] for row in table["games"].values())
    assert table["games"]["Frostbite"] == {"random": 65.2, "human": 4334.7}


def median(scores: statistics.Scores) -> float:
    return float(np.median(scores))


def test_the_difference_interval_is_that_of_two_resampled_means() -> None:
    """Against the normal theory of two samples of seeds whose episodes are all equal."""
    generator = np.random.default_rng(0)
    ours = [np.full(3, x) for x in generator.normal(10.0, 2.0, 40)]
    theirs = [np.full(3, x) for x in generator.normal(4.0, 1.0, 40)]
    low, high = statistics.difference_interval(ours, theirs, mean)
    sides = [np.array([games[0] for games in side]) for side in (ours, theirs)]
    error = np.sqrt(sum(side.var() / len(side) for side in sides))
    middle = sides[0].mean() - sides[1].mean()
    assert abs(low - (middle - 1.96 * error)) < 0.1 * error
    assert abs(high - (middle + 1.96 * error)) < 0.1 * error


def test_the_difference_interval_includes_the_spread_of_episodes() -> None:
    games = np.random.default_rng(0).normal(0.0, 1.0, 100)
    low, high = statistics.difference_interval([games], [np.zeros(5)], mean)
    assert high - low == pytest.approx(2 * 1.96 * games.std() / 10, rel=0.1)
    with pytest.raises(ValueError, match="each side needs a seed"):
        statistics.difference_interval([], [games], mean)


def test_the_difference_interval_is_scipys_for_one_episode_a_seed() -> None:
    random = np.random.default_rng(2)
    ours, theirs = random.exponential(9.0, 12), random.exponential(5.0, 8)
    want = stats.bootstrap(
        (ours, theirs),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        method="percentile",
        n_resamples=20_000,
        rng=random,
    ).confidence_interval
    got = statistics.difference_interval(
        [np.array([x]) for x in ours], [np.array([y]) for y in theirs], mean, resamples=10_000
    )
    assert got == pytest.approx(tuple(want), abs=0.03 * (want.high - want.low))


def test_the_mean_interval_is_the_plain_loop_for_unequal_numbers_of_episodes() -> None:
    seeds = [np.array([1.0, 5.0, 2.0]), np.array([40.0]), np.array([7.0, 8.0, 20.0, 9.0])]
    random, values = np.random.default_rng(1), []
    for _ in range(5_000):
        resample = [seeds[i] for i in random.integers(3, size=3)]
        values.append(np.mean([np.median(random.choice(games, len(games))) for games in resample]))
    got = statistics.mean_interval(seeds, median, resamples=20_000)
    assert got == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1.0)


def test_a_mean_of_medians_is_not_the_median_of_all_episodes() -> None:
    """Medians 0, 0 and 90: their mean of 30 must be in the interval, which the pooled median 0 is
    not.
    """
    seeds = [np.zeros(9), np.zeros(9), np.full(9, 90.0)]
    low, high = statistics.mean_interval(seeds, median)
    assert (low, high) == (0, 90)
    assert statistics.mean_interval([np.full(9, 90.0)] * 2, median) == (90, 90)
    with pytest.raises(ValueError, match="level"):
        statistics.mean_interval(seeds, median, level=0.0)


def test_the_ratio_interval_is_the_plain_loop_over_paired_seeds() -> None:
    """Seeds differ by much, so that unpaired sides would give a much wider interval."""
    generator = np.random.default_rng(3)
    levels = [10.0, 100.0, 400.0]
    theirs = [level + generator.normal(0, 0.1, size=6) for level in levels]
    ours = [0.9 * level + generator.normal(0, 0.1, size=4) for level in levels]
    low, high = statistics.ratio_interval(ours, theirs)
    assert 0.87 < low < 0.9 < high < 0.93
    ratios = []
    for _ in range(4_000):
        sums = [0.0, 0.0]
        for seed in generator.integers(3, size=3):
            for side, scores in enumerate((ours[seed], theirs[seed])):
                sums[side] += scores[generator.integers(len(scores), size=len(scores))].mean()
        ratios.append(sums[0] / sums[1])
    np.testing.assert_allclose((low, high), np.quantile(ratios, [0.025, 0.975]), atol=0.005)


def test_a_ratio_to_nothing_has_no_interval_and_seeds_are_paired() -> None:
    ones, some = np.ones(3), np.array([-1.0, 2.0, 1.0])
    assert np.isnan(statistics.ratio_interval([ones], [some])).all()
    with pytest.raises(ValueError, match="2 and 1 seeds"):
        statistics.ratio_interval([ones, ones], [ones])
    with pytest.raises(ValueError, match="must have a seed"):
        statistics.ratio_interval([], [])
