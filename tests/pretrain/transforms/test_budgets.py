"""Visible tokens: always the same number, split evenly over all splits."""

from __future__ import annotations

import numpy as np
import pytest

from pretrain.transforms import token_masking as budgets


def test_the_split_is_that_of_the_released_masks() -> None:
    """Against the formula, round(32 U), and measurements of the released code: RGB visible 15.9 on
    average, deviation 9.3, 0 to 32, none of it in .011 and all of it in .015 of frames.
    """
    counts = (budgets.sample(np.random.default_rng(0), 20_000, 2, 64, 32) < 64).sum(1)
    assert counts.mean() == pytest.approx(16, abs=0.25) and abs(counts.mean() - 15.9) < 0.35
    assert counts.std() == pytest.approx(32 / np.sqrt(12), abs=0.1)
    assert abs(counts.std() - 9.3) < 0.2
    share = np.bincount(counts, minlength=33) / len(counts)
    assert len(share) == 33
    np.testing.assert_allclose(share[1:-1], 1 / 32, atol=0.006)  # five deviations
    np.testing.assert_allclose(share[[0, -1]], 1 / 64, atol=0.0045)


@pytest.mark.parametrize(("modalities", "visible"), [(2, 32), (1, 16), (3, 31)])
def test_the_number_of_visible_tokens_is_exact(modalities: int, visible: int) -> None:
    """With three modalities the rounded shares often sum to one more or less."""
    keep = budgets.sample(np.random.default_rng(1), 500, modalities, 64, visible)
    assert keep.shape == (500, visible) and keep.dtype == np.int64
    assert keep.min() >= 0 and keep.max() < modalities * 64
    assert (np.diff(keep) > 0).all(), "twice, or not rising"


def test_within_a_modality_every_patch_is_equally_likely() -> None:
    keep = budgets.sample(np.random.default_rng(2), 4000, 2, 64, 32)
    often = np.bincount(keep.ravel(), minlength=128) / 4000
    np.testing.assert_allclose(often, 0.25, atol=0.035)  # five deviations
    pairs = budgets.hidden(keep, 2, 64)[:, 0, :2].all(1).mean()
    assert pairs == pytest.approx(7 / 12, abs=0.03)  # hidden together: E[(1 - U / 2)²]


def test_given_shares_are_kept() -> None:
    shares = np.array([[0.875, 0.125], [0.0, 1.0], [1.0, 0.0]])
    keep = budgets.pick(np.random.default_rng(0), shares, 64, 32)
    assert (keep < 64).sum(1).tolist() == [28, 0, 32]


def test_sampling_is_reproducible() -> None:
    one, other = (budgets.sample(np.random.default_rng(7), 9, 2, 16, 8) for _ in range(2))
    assert np.array_equal(one, other)


def test_hidden_and_places_against_a_loop() -> None:
    keep = budgets.sample(np.random.default_rng(3), 5, 2, 9, 4)
    hidden, places = budgets.hidden(keep, 2, 9), budgets.places(keep, 2, 9)
    for b in range(5):
        for m in range(2):
            for n in range(9):
                where = np.flatnonzero(keep[b] == 9 * m + n)
                assert hidden[b, m, n] == (len(where) == 0)
                assert places[b, m, n] == (4 * b + where[0] if len(where) else 20 + n)
