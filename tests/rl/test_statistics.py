"""Scores' aggregates against scipy, and the reference table against the games there are."""

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


def test_interquartile_mean_forgets_an_outlier() -> None:
    assert statistics.interquartile_mean(np.array([1.0, 2.0, 3.0, 1e9])) == 2.5


def test_bootstrap_of_a_mean_is_the_normal_interval() -> None:
    scores = np.random.default_rng(0).normal(10, 2, size=400)
    low, high = statistics.bootstrap_interval([scores], lambda x: float(x.mean()))
    half = 1.96 * scores.std() / 20
    assert (low, high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.03)


def test_strata_are_resampled_apart() -> None:
    """Between strata that never vary there is nothing to resample; pooled there would be."""
    strata = [np.zeros(10), np.full(10, 100.0)]
    assert statistics.bootstrap_interval(strata, lambda x: float(x.mean())) == (50, 50)


def test_same_seed_same_interval() -> None:
    strata = [np.random.default_rng(1).normal(size=20)]
    first = statistics.bootstrap_interval(strata, seed=3, resamples=100)
    assert first == statistics.bootstrap_interval(strata, seed=3, resamples=100)
    assert first != statistics.bootstrap_interval(strata, seed=4, resamples=100)


def test_impossible_input_is_refused() -> None:
    with pytest.raises(ValueError, match="scores"):
        statistics.interquartile_mean(np.array([]))
    with pytest.raises(ValueError, match="level"):
        statistics.bootstrap_interval([np.ones(3)], level=1.0)


def test_reference_scores_are_of_games_there_are() -> None:
    path = Path(statistics.__file__).parent / "reference_scores.json"
    table = json.loads(path.read_text())
    assert table["source"]
    assert len(table["games"]) == 57
    assert set(table["games"]) <= set(games())
    assert all(row["human"] > row["random"] for row in table["games"].values())
    assert table["games"]["Frostbite"] == {"random": 65.2, "human": 4334.7}
