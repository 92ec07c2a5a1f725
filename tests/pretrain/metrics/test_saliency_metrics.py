"""F-measure and error against loops over frames, thresholds and pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.metrics.saliency import Predicted, Truth, scores


def f(precision: float, recall: float) -> float:
    return 1.3 * precision * recall / (0.3 * precision + recall) if precision + recall else 0.0


def one(predicted: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[float, float]:
    """Precision and recall of a frame, pixel by pixel."""
    hits = chosen = marked = 0
    for p, t in zip(predicted.ravel().tolist(), truth.ravel().tolist(), strict=True):
        chosen += p >= threshold
        marked += t >= 127.5
        hits += p >= threshold and t >= 127.5
    return hits / chosen if chosen else 0.0, hits / marked


def by_loops(predicted: Predicted, truth: Truth) -> tuple[float, float, float]:
    frames = [(p, t) for p, t in zip(predicted, truth, strict=True) if (t >= 127.5).any()]

    def averaged(thresholds: list[float]) -> float:
        each = [one(p, t, k) for (p, t), k in zip(frames, thresholds, strict=True)]
        return f(*(sum(column) / len(each) for column in zip(*each, strict=True)))

    best = max(averaged([k / 255] * len(frames)) for k in range(256))
    twice = averaged([min(1.0, 2 * float(p.astype(np.float64).mean())) for p, _ in frames])
    errors = [abs(p - t / 255) for p, t in zip(predicted.ravel(), truth.ravel(), strict=True)]
    return best, twice, sum(errors) / len(errors)


def maps(seed: int, count: int = 3, side: int = 5) -> tuple[Predicted, Truth]:
    """Random maps; predicted values are between thresholds, where rounding has no effect."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 256, (count, side, side), np.uint8)
    level = rng.integers(0, 255, truth.shape) + rng.choice([0.25, 0.5, 0.75], truth.shape)
    return (level / 255).astype(np.float32), truth


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_scores_against_loops(seed: int) -> None:
    actual = scores(*maps(seed))
    expected = by_loops(*maps(seed))
    assert (actual.f_max, actual.f_adaptive, actual.mae) == pytest.approx(expected, abs=1e-6)


def test_a_perfect_map_and_its_opposite() -> None:
    truth = np.zeros((2, 4, 4), np.uint8)
    truth[:, 1:3, 1:3] = 255
    right = scores((truth / 255).astype(np.float32), truth)
    assert (right.f_max, right.f_adaptive, right.mae) == (1.0, 1.0, 0.0)
    wrong = scores((1 - truth / 255).astype(np.float32), truth)
    assert wrong.mae == 1 and wrong.f_max == pytest.approx(f(0.25, 1.0))  # everything is chosen


def test_an_all_zero_map_scores_like_a_map_of_ones() -> None:
    """At threshold 0 all pixels are salient, in any map."""
    _, truth = maps(0)
    zero = scores(np.zeros(truth.shape, np.float32), truth)
    share = float((truth >= 128).mean((1, 2)).mean())
    assert zero.f_max == pytest.approx(f(share, 1.0)) == pytest.approx(zero.f_adaptive)
    assert zero.mae == pytest.approx(truth.mean() / 255)


def test_frames_without_salient_pixels_count_for_the_error_alone() -> None:
    predicted, truth = maps(1)
    blank = np.full((1, 5, 5), 127, np.uint8)
    more = scores(np.concatenate([predicted, predicted[:1]]), np.concatenate([truth, blank]))
    alone = scores(predicted, truth)
    assert (more.f_max, more.f_adaptive) == (alone.f_max, alone.f_adaptive)
    assert more.mae != alone.mae
    nothing = scores(predicted[:1], blank)
    assert nothing.f_max is nothing.f_adaptive is None and nothing.mae > 0


def test_half_of_the_range_is_salient_and_less_is_not() -> None:
    truth = np.array([[[127, 128]]], np.uint8)
    assert scores(np.array([[[0.0, 1.0]]], np.float32), truth).f_max == 1
    assert scores(np.array([[[1.0, 0.0]]], np.float32), truth).f_max != 1
