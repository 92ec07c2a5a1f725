"""Verdicts on made-up data with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from pipeline.results.verdict import POWER, Gap, judge, judge_pairs
from rl.statistics import welch_interval

Sample = NDArray[np.float64]
MEAN = "mean"


def seeds(mean: float, spread: float, count: int, seed: int) -> list[Sample]:
    generator = np.random.default_rng(seed)
    return [
        mean + spread * generator.standard_normal() + generator.standard_normal(50)
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("mean", "spread", "gap", "word"),
    [
        (100.0, 5.0, 100.0, "reproduced"),
        (-100.0, 5.0, 100.0, "not reproduced"),  # the other way round
        (0.0, 5.0, 100.0, "not reproduced"),  # no difference, and surely not the paper's
        (20.0, 100.0, 60.0, "under-powered"),
        (100.0, 5.0, None, "reproduced"),  # the paper only says which is better
        (-100.0, 5.0, None, "not reproduced"),
        (0.0, 5.0, None, "under-powered"),  # and then 0 may hide any difference
    ],
)
def test_verdicts(mean: float, spread: float, gap: float | None, word: str) -> None:
    claimed = None if gap is None else Gap(gap, (10.0, 10.0))
    verdict = judge(seeds(mean, spread, 6, seed=1), seeds(0.0, spread, 6, seed=2), claimed, MEAN)
    assert verdict.word == word
    assert verdict.low < verdict.difference < verdict.high


def test_verdicts_at_the_edges_of_the_interval() -> None:
    """Seeds at 0, 0 and 100 against 0: all three of a resample are 100 in 1 of 27, so 0 to 100."""
    zero, mixed = [np.zeros(5)] * 3, [np.zeros(5), np.zeros(5), np.full(5, 100.0)]
    verdict = judge(mixed, zero, Gap(100.0, (1.0, 1.0)), MEAN)
    assert (verdict.low, verdict.high, verdict.word) == (0.0, 100.0, "under-powered")
    assert judge(mixed, zero, Gap(100.1, (1.0, 1.0)), MEAN).word == "not reproduced"
    assert judge(zero, mixed, Gap(1.0, (1.0, 1.0)), MEAN).word == "not reproduced"


def test_the_detectable_difference_is_detected_in_four_of_five_cases() -> None:
    """Welch's test on many pairs of ten seeds with that difference."""
    spread, count, rng = 3.0, 10, np.random.default_rng(0)
    normal = stats.norm.ppf((np.arange(200) + 0.5) / 200)
    side = [np.array([spread * z / normal.std(ddof=1)]) for z in normal]
    exact = judge(side, side, None, MEAN).detectable * math.sqrt(200 / count)
    mine, theirs = rng.normal(exact, spread, (4_000, count)), rng.normal(0, spread, (4_000, count))
    error = np.sqrt((mine.var(1, ddof=1) + theirs.var(1, ddof=1)) / count)
    detected = np.abs(mine.mean(1) - theirs.mean(1)) > 1.96 * error
    assert 0.77 < detected.mean() < 0.85


def test_probes_are_judged_by_their_seeds_alone() -> None:
    """Welch's interval of the seeds' means, whatever the number of splits; the detectable
    difference exceeds it in four of five cases.
    """
    ours, theirs = np.array([0.7, 0.75, 0.8]), np.array([0.6, 0.7, 0.65])
    known = welch_interval(ours, theirs)
    for splits in (1, 50):
        sides = [[np.full(splits, x) for x in side] for side in (ours, theirs)]
        verdict = judge(sides[0], sides[1], None, "probe")
        assert (verdict.low, verdict.high) == pytest.approx(known)
        assert verdict.word == "under-powered"  # the bootstrap's interval excludes 0 here
        assert judge(sides[0], sides[1], None, MEAN).word == "reproduced"
    error = math.sqrt(ours.var(ddof=1) / 3 + theirs.var(ddof=1) / 3)
    assert verdict.detectable == pytest.approx((known[1] - known[0]) / 2 + POWER * error)


def test_two_seeds_a_side_are_under_powered() -> None:
    verdict = judge(seeds(1e6, 0, 2, 0), seeds(0, 0, 9, 0), Gap(1.0, (1.0, 1.0)), MEAN)
    assert verdict.word == "under-powered" and math.isnan(verdict.low)


def test_the_seeds_needed_detect_the_gap_in_four_of_five_cases() -> None:
    gap = Gap(100.0, (120.0, 60.0))
    generator = np.random.default_rng(0)
    size = (20_000, gap.seeds_needed)
    above = generator.normal(gap.size, gap.deviations[0], size).mean(1)
    below = generator.normal(0, gap.deviations[1], size).mean(1)
    error = np.hypot(*gap.deviations) / np.sqrt(gap.seeds_needed)
    assert 0.78 < ((above - below) / error > 1.96).mean() < 0.88


def test_with_the_seeds_needed_the_verdict_itself_detects_the_gap() -> None:
    """The whole verdict, bootstrap included, on simulated pairs: the target is 80 %, and intervals
    of few seeds are too short.
    """
    gap = Gap(100.0, (60.0, 40.0))
    generator = np.random.default_rng(0)

    def side(mean: float, deviation: float) -> list[Sample]:
        return list(generator.normal(mean, deviation, (gap.seeds_needed, 1)))

    words = [
        judge(side(gap.size, gap.deviations[0]), side(0, gap.deviations[1]), gap, MEAN).word
        for _ in range(40)
    ]
    assert 0.65 < words.count("reproduced") / len(words) < 1.0


@pytest.mark.parametrize(
    ("gaps", "size", "same", "word"),
    [
        ([-0.02, -0.021, -0.022, -0.019], -0.01, False, "reproduced"),
        ([0.02, 0.021, 0.022, 0.019], -0.01, False, "not reproduced"),
        ([0.02, 0.021, 0.022, 0.019], 0.01, False, "reproduced"),
        ([-0.001, 0.001, 0.002, -0.002], -0.01, False, "not reproduced"),  # 0 and not the paper's
        ([-0.05, 0.03, 0.02, -0.03], -0.01, False, "under-powered"),
        ([-0.02, -0.02], -0.01, False, "under-powered"),
        ([0.001, -0.001, 0.002, -0.002], 0.01, True, "reproduced"),
        ([0.02, 0.021, 0.022, 0.019], 0.01, True, "not reproduced"),
        ([0.0, 0.02, 0.01, -0.01], 0.01, True, "under-powered"),
    ],
)
def test_verdicts_on_pairs(gaps: list[float], size: float, same: bool, word: str) -> None:
    verdict = judge_pairs(gaps, size, same=same)
    assert verdict.word == word and verdict.difference == pytest.approx(np.mean(gaps))
    if len(gaps) > 2:
        known = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
        assert (verdict.low, verdict.high) == pytest.approx(tuple(known))
