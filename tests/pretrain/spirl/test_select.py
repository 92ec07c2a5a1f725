"""Selection against the Lorenz curve computed point by point, for each rule of the cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.spirl import select


def brute_force(errors: list[float], slope: float, k_max: int) -> list[int]:
    """The patches past the point after which the normalised curve is steeper than `slope`."""
    order = np.argsort(errors, kind="stable")
    curve = np.concatenate([[0.0], np.cumsum(np.array(errors, np.float64)[order])])
    curve /= curve[-1]
    step = 1 / len(errors)
    past = [i for i in range(len(errors)) if (curve[i + 1] - curve[i]) / step > slope]
    chosen = [int(order[i]) for i in past] or [int(order[-1])]
    return sorted(chosen[-k_max:])


def released(errors: list[float], slope: float, k_max: int) -> list[int]:
    """The patches from the one at which the curve's mean rise over the steps before and after it is
    closest to that of a line of this slope.
    """
    order, count = np.argsort(errors, kind="stable"), len(errors)
    curve = np.cumsum(np.array(errors)[order]) / np.sum(errors)
    wrong = {i: abs(curve[i + 1] - curve[i - 1] - 2 * slope / count) for i in range(1, count - 1)}
    at = min(wrong, key=lambda i: (wrong[i], i))
    return sorted(order[max(at, count - k_max) :].tolist())


@pytest.mark.parametrize(("cut", "rule"), [("slope", brute_force), ("released", released)])
@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    patches=st.integers(3, 40),
    slope=st.sampled_from([0.5, 1.0, 1.7]),
    k_max=st.integers(1, 40),
)
def test_dynamic_against_brute_force(
    cut: select.Cut,
    rule: Callable[[list[float], float, int], list[int]],
    seed: int,
    patches: int,
    slope: float,
    k_max: int,
) -> None:
    k_max = min(k_max, patches)
    rng = np.random.default_rng(seed)
    errors = rng.gamma(0.5, size=(3, patches))
    index, mask = select.dynamic(torch.from_numpy(errors), slope, k_max, cut)
    assert index.shape == mask.shape == (3, k_max)
    for row in range(3):
        expected = rule(errors[row].tolist(), slope, k_max)
        assert index[row][mask[row]].tolist() == expected
        assert mask[row].tolist() == [i < len(expected) for i in range(k_max)]
        assert not index[row][~mask[row]].any()


def test_lorenz_against_a_loop() -> None:
    errors = [3.0, 1.0, 0.0, 4.0]
    total, expected = 0.0, [0.0]
    for error in sorted(errors):
        total += error
        expected.append(total / 8)
    assert select.lorenz(torch.tensor([errors])).tolist() == [expected]


def test_the_released_cut_keeps_the_patch_at_the_cut() -> None:
    errors = torch.tensor([[1.0, 1.0, 2.0, 2.0, 4.0]])  # slopes 3/4, 1 and 3/2 from the second on
    assert select.salient(errors, 1.0, "released").tolist() == [3]
    assert select.salient(errors, 1.0).tolist() == [1]
    assert select.salient(errors, 0.75, "released").tolist() == [4]


def test_45_degrees_is_the_mean() -> None:
    errors = torch.tensor([[1.0, 1.0, 1.0, 9.0, 3.0, 3.1]])  # mean 3.0167
    index, mask = select.dynamic(errors, 1.0, 4)
    assert index[mask].tolist() == [3, 5]


def test_at_most_k_max_and_the_worst_of_them() -> None:
    errors = torch.tensor([[0.0, 5.0, 7.0, 6.0, 0.0, 0.0]])
    index, mask = select.dynamic(errors, 1.0, 2)
    assert index.tolist() == [[2, 3]] and mask.all()


@pytest.mark.parametrize("errors", [torch.ones(2, 9), torch.zeros(2, 9)])
def test_a_frame_of_equal_errors_has_one_patch(errors: torch.Tensor) -> None:
    index, mask = select.dynamic(errors, 1.0, 4)
    assert mask.sum(1).tolist() == [1, 1]
    assert index[mask].tolist() == [0, 0]


def test_fixed_takes_the_largest() -> None:
    errors = torch.rand(4, 30)
    index, mask = select.fixed(errors, 7)
    assert mask.all()
    for row in range(4):
        assert index[row].tolist() == sorted(np.argsort(errors[row].numpy())[-7:].tolist())


def test_every_takes_all() -> None:
    index, mask = select.every(2, 5, torch.device("cpu"))
    assert index.tolist() == [[0, 1, 2, 3, 4]] * 2 and mask.all() and mask.shape == (2, 5)
