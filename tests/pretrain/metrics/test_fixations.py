"""Fixation metrics against loops over pixels, closed forms, SciPy and OpenCV."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.stats import entropy, mannwhitneyu, pearsonr

from bench.fixations import random_frame, sampled_aucs
from pretrain.metrics import fixations as module
from pretrain.metrics.fixations import (
    Fixations,
    Map,
    auc_judd,
    averages,
    correlation,
    density,
    fixation_map,
    frame_scores,
    information_gain,
    kl_divergence,
    nss,
    resize,
    shuffled_auc,
    similarity,
)

SEEDS = st.integers(0, 2**32 - 1)


def sample(seed: int, ties: bool = True) -> tuple[Map, Fixations, Fixations]:
    """A positive map (11, 9), of few values if there are to be ties, and two fixation maps."""
    rng = np.random.default_rng(seed)
    saliency = rng.integers(1, 5, (11, 9)) / 4 if ties else rng.random((11, 9)) + 0.01
    fixations, elsewhere = (rng.integers(-4, 4, (11, 9)).clip(0) for _ in range(2))
    saliency[5, 5], fixations[5, 5], elsewhere[4, 4] = 2.0, 3, 1
    return saliency.astype(np.float32), fixations, elsewhere


def samples_of(saliency: Map, fixations: Fixations) -> list[float]:
    """The value at each fixation, one by one."""
    return [
        float(saliency[y, x]) for y, x in np.argwhere(fixations > 0) for _ in range(fixations[y, x])
    ]


@settings(max_examples=40)
@given(SEEDS)
def test_nss_is_the_mean_z_score_of_the_fixations(seed: int) -> None:
    saliency, fixations, _ = sample(seed)
    values = [float(value) for value in saliency.ravel()]
    mean = sum(values) / len(values)
    deviation = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
    scores = [(value - mean) / deviation for value in samples_of(saliency, fixations)]
    assert nss(saliency, fixations) == pytest.approx(sum(scores) / len(scores))


def test_nss_of_one_bright_pixel() -> None:
    """Of N pixels: sqrt(N - 1) there, and -1 / sqrt(N - 1) anywhere else."""
    saliency, there, elsewhere = (np.zeros((21, 16)) for _ in range(3))
    saliency[3, 4] = there[3, 4] = elsewhere[9, 9] = 1
    n = saliency.size - 1
    assert nss(saliency, there.astype(int)) == pytest.approx(n**0.5)
    assert nss(saliency, elsewhere.astype(int)) == pytest.approx(-(n**-0.5))


@settings(max_examples=40)
@given(SEEDS, st.booleans())
def test_shuffled_auc_is_the_share_of_pairs(seed: int, ties: bool) -> None:
    """Of one fixation here and one of other frames, pair by pair; and SciPy's U statistic."""
    saliency, fixations, others = sample(seed, ties)
    here, there = samples_of(saliency, fixations), samples_of(saliency, others)
    wins = sum((p > q) + 0.5 * (p == q) for p in here for q in there)
    exact = shuffled_auc(saliency, fixations, others)
    assert exact == pytest.approx(wins / len(here) / len(there))
    area = mannwhitneyu(here, there).statistic / len(here) / len(there)
    assert exact == pytest.approx(area)


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_auc_is_the_mean_of_random_splits(seed: int) -> None:
    """Within four standard errors of 100 splits, of a map that has ties."""
    frame = random_frame(np.random.default_rng(seed))
    exact = shuffled_auc(frame.saliency, frame.fixations, frame.others)
    splits = sampled_aucs(frame.saliency, frame.fixations, frame.others)
    error = splits.std(ddof=1) / len(splits) ** 0.5
    assert abs(exact - splits.mean()) < 4 * error < 0.02


def test_a_frame_that_is_looked_at_like_the_others_is_at_chance() -> None:
    saliency, fixations, _ = sample(0)
    assert shuffled_auc(saliency, fixations, 7 * fixations) == pytest.approx(0.5)


@settings(max_examples=40)
@given(SEEDS)
def test_auc_judd_has_a_threshold_at_each_fixated_pixel(seed: int) -> None:
    """The benchmark's loop, on values without ties."""
    saliency, fixations, _ = sample(seed, ties=False)
    at = sorted(saliency[fixations > 0], reverse=True)
    rates = [(0.0, 0.0)]
    for number, threshold in enumerate(at, 1):
        above = int((saliency >= threshold).sum())
        rates.append(((above - number) / (saliency.size - len(at)), number / len(at)))
    rates.append((1.0, 1.0))
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(rates))
    assert auc_judd(saliency, fixations) == pytest.approx(area)


def test_auc_judd_of_one_fixation_and_of_ties() -> None:
    """Above all but k of the n others: 1 - k / 2n. Of four pixels at 1, two are fixated."""
    saliency = np.arange(12.0).reshape(3, 4)
    fixations = np.zeros((3, 4), int)
    fixations[2, 1] = 5  # as often as you like
    assert auc_judd(saliency, fixations) == pytest.approx(1 - 2 / 22)
    saliency, fixations = np.zeros((3, 4)), np.zeros((3, 4), int)
    saliency[0], fixations[0, :2] = 1, 1
    assert auc_judd(saliency, fixations) == pytest.approx(1 - 0.2 / 2)


def test_the_density_is_opencvs_blur() -> None:
    fixations = fixation_map(np.random.default_rng(0).random((50, 2)) * (160, 210), 210, 160)
    fixations[0, 0] = fixations[209, 80] = 3  # the border too
    blurred = cv2.GaussianBlur(
        fixations.astype(np.float64), (41, 41), 5.0, borderType=cv2.BORDER_REFLECT_101
    )
    np.testing.assert_allclose(density(fixations), blurred, atol=1e-12)


@settings(max_examples=20)
@given(SEEDS)
def test_kl_correlation_and_similarity_are_those_of_the_densities(seed: int) -> None:
    saliency, fixations, _ = sample(seed)
    blurred = cv2.GaussianBlur(
        fixations.astype(np.float64), (9, 9), 1.0, borderType=cv2.BORDER_REFLECT_101
    )
    target = density(fixations, 1.0)
    p, q = blurred / blurred.sum(), saliency / saliency.sum(dtype=np.float64)
    assert kl_divergence(saliency, target) == pytest.approx(entropy(p.ravel(), q.ravel()))
    both = pearsonr(blurred.ravel(), saliency.ravel())
    assert correlation(saliency, target) == pytest.approx(both.statistic)
    smaller = sum(min(a, b) for a, b in zip(p.ravel(), q.ravel(), strict=True))
    assert similarity(saliency, target) == pytest.approx(smaller)


def test_the_density_itself_is_the_best_map() -> None:
    _, fixations, _ = sample(3)
    best = density(fixations)
    assert kl_divergence(best, best) == pytest.approx(0, abs=1e-12)
    assert correlation(best, best) == pytest.approx(1)
    assert similarity(7 * best, best) == pytest.approx(1)


@settings(max_examples=20)
@given(SEEDS)
def test_information_gain_is_in_bits_a_fixation(seed: int) -> None:
    saliency, fixations, _ = sample(seed)
    prior = np.random.default_rng(seed).random(saliency.shape) + 0.1
    predicted = saliency.astype(np.float64) / saliency.sum(dtype=np.float64)
    here, there = samples_of(predicted, fixations), samples_of(prior, fixations)
    bits = [np.log2(a / b * prior.sum()) for a, b in zip(here, there, strict=True)]
    assert information_gain(saliency, fixations, prior) == pytest.approx(np.mean(bits), rel=1e-5)
    assert information_gain(2 * prior, fixations, prior) == pytest.approx(0, abs=1e-12)


def test_information_gain_of_a_map_of_the_right_half() -> None:
    """All of the fixations in half of the pixels: one bit more than the uniform distribution."""
    saliency, fixations = np.zeros((6, 8)), np.zeros((6, 8), int)
    saliency[:, 4:], fixations[2, 5], fixations[3, 7] = 1, 3, 1
    assert information_gain(saliency, fixations, np.ones((6, 8))) == pytest.approx(1)


def test_undefined_metrics_are_nan() -> None:
    saliency, fixations, others = sample(1)
    prior, none = np.ones_like(saliency), np.zeros_like(fixations)
    every = frame_scores(saliency, fixations, others, prior)
    assert np.isfinite(list(every.values())).all()
    bad = np.where(saliency == saliency.max(), np.nan, saliency)
    infinite = np.where(saliency == saliency.max(), np.inf, saliency)
    for undefined in (
        frame_scores(saliency, none, others, prior),
        frame_scores(bad, fixations, others, prior),
        frame_scores(infinite, fixations, others, prior),
        frame_scores(0 * saliency, fixations, others, prior),
    ):
        assert undefined.keys() == every.keys() and np.isnan(list(undefined.values())).all()
    without = frame_scores(saliency, fixations, none, prior)
    assert [name for name, value in without.items() if np.isnan(value)] == ["shuffled_auc"]


def test_a_constant_map_is_the_uniform_distribution_and_has_no_order() -> None:
    _, fixations, others = sample(2)
    constant = np.full(fixations.shape, 0.3, np.float32)
    constant[::2] += np.float32(3e-8)  # rounding is no order
    scores = frame_scores(constant, fixations, others, np.ones(fixations.shape))
    undefined = {name for name, value in scores.items() if np.isnan(value)}
    assert undefined == {"nss", "shuffled_auc", "auc_judd", "cc"}
    assert scores["information_gain"] == pytest.approx(0, abs=1e-6)
    p = density(fixations).ravel()
    assert scores["kl"] == pytest.approx(np.log(p.size) - entropy(p), abs=1e-6)


def test_zero_and_negative_saliency_are_no_distributions_of_fixations() -> None:
    saliency, fixations, others = sample(4)
    hole = np.where((np.arange(11) == 5)[:, None] & (np.arange(9) == 5), 0, saliency)
    scores = frame_scores(hole, fixations, others, np.ones(fixations.shape))
    undefined = {name for name, value in scores.items() if np.isnan(value)}
    assert undefined == {"kl", "information_gain"}
    scores = frame_scores(saliency - 1.1, fixations, others, np.ones(fixations.shape))
    undefined = {name for name, value in scores.items() if np.isnan(value)}
    assert undefined == {"kl", "sim", "information_gain"}
    everywhere = np.ones_like(fixations)
    assert np.isnan(auc_judd(saliency, everywhere)) and np.isnan(
        correlation(saliency, density(everywhere))
    )


def test_undefined_frames_are_counted_and_left_out() -> None:
    frames = [{"nss": 1.0, "kl": np.nan}, {"nss": np.nan, "kl": np.nan}, {"nss": 4.0, "kl": np.nan}]
    result = averages(frames)
    assert (result["nss"].mean, result["nss"].defined) == (2.5, 2)
    assert result["nss"].coverage == pytest.approx(2 / 3)
    assert np.isnan(result["kl"].mean) and result["kl"].coverage == 0
    with pytest.raises(ValueError, match="no frames"):
        averages([])


def test_points_beyond_the_screen_are_dropped() -> None:
    inside = [(0.0, 0.0), (0.9, 0.99), (7.99, 5.0), (7.0, 5.9)]
    outside = [(-0.1, 2.0), (8.0, 2.0), (2.0, 6.0), (np.nan, 1.0), (1.0, np.inf)]
    counts = fixation_map(np.array(inside + outside), 6, 8)
    assert counts[0, 0] == 2 and counts[5, 7] == 2 and counts.sum() == 4
    assert fixation_map(np.empty((0, 2)), 6, 8).sum() == 0


@pytest.mark.parametrize("size", [(7, 7), (84, 84), (1, 5), (300, 200)])
def test_maps_are_resized_as_by_interpolation_with_a_mirrored_border(size: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).random((2, *size), np.float32)
    axes = [(np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(module.SIZE, size, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij")
    for resized, one in zip(resize(maps, *module.SIZE), maps, strict=True):
        oracle = map_coordinates(one.astype(np.float64), grid, order=1, mode="mirror")
        np.testing.assert_allclose(resized, oracle, atol=1e-9)
