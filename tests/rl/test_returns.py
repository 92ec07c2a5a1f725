"""n-step returns and the C51 projection against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rl.returns import n_step, project


def by_hand(
    reward: Tensor, terminated: Tensor, truncated: Tensor, gamma: float
) -> tuple[float, float, int]:
    total, steps = 0.0, 0
    for r, over, cut in zip(reward, terminated, truncated, strict=True):
        total += gamma**steps * float(r)
        steps += 1
        if over:
            return total, 0.0, steps
        if cut:
            break
    return total, gamma**steps, steps


@pytest.mark.parametrize("gamma", [1.0, 0.99, 0.5])
def test_n_step_is_the_plain_sum_up_to_the_episodes_end(gamma: float) -> None:
    torch.manual_seed(0)
    reward = torch.randn(200, 7)
    terminated = torch.rand(200, 7) < 0.1
    truncated = (torch.rand(200, 7) < 0.1) & ~terminated
    got = n_step(reward, terminated, truncated, gamma)
    for row in range(200):
        want = by_hand(reward[row], terminated[row], truncated[row], gamma)
        assert got[0][row].item() == pytest.approx(want[0], abs=1e-5)
        assert got[1][row].item() == pytest.approx(want[1], abs=1e-6)
        assert got[2][row].item() == want[2]


def test_a_window_with_a_truncation_equals_the_episodes_split_apart() -> None:
    reward = torch.tensor([[1.0, 2.0, 4.0, 100.0, 100.0]])
    no = torch.zeros(1, 5, dtype=torch.bool)
    cut = torch.tensor([[False, False, True, False, False]])
    whole = n_step(reward, no, cut, 0.5)
    alone = n_step(reward[:, :3], no[:, :3], no[:, :3], 0.5)
    for together, apart in zip(whole, alone, strict=True):
        assert torch.equal(together, apart)


def test_only_a_termination_ends_the_bootstrap() -> None:
    no, yes = torch.tensor([[False]]), torch.tensor([[True]])
    reward = torch.ones(1, 1)
    assert n_step(reward, yes, no, 0.9)[1].item() == 0
    assert n_step(reward, no, yes, 0.9)[1].item() == pytest.approx(0.9)


def project_by_loop(
    probability: Tensor, reward: Tensor, discount: Tensor, support: Tensor
) -> Tensor:
    """Bellemare et al. 2017, algorithm 1, literally."""
    low, high, count = float(support[0]), float(support[-1]), len(support)
    spacing = (high - low) / (count - 1)
    out = np.zeros((len(reward), count))
    for row in range(len(reward)):
        for j in range(count):
            shifted = float(reward[row] + discount[row] * support[j])
            place = (min(max(shifted, low), high) - low) / spacing
            below = int(np.floor(place + 1e-9))
            above = min(below + 1, count - 1)
            out[row, below] += float(probability[row, j]) * (1 - (place - below))
            out[row, above] += float(probability[row, j]) * (place - below)
    return torch.tensor(out, dtype=torch.float32)


def test_projection_is_algorithm_1() -> None:
    torch.manual_seed(0)
    support = torch.linspace(-10, 10, 51)
    probability = torch.randn(64, 51).softmax(-1)
    reward = torch.randn(64) * 6  # some beyond the ends
    discount = torch.rand(64) * (torch.rand(64) < 0.7)
    got = project(probability, reward, discount, support)
    want = project_by_loop(probability, reward, discount, support)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=0)
    torch.testing.assert_close(got.sum(-1), torch.ones(64))


def test_projection_keeps_the_mean_while_nothing_is_clipped() -> None:
    torch.manual_seed(0)
    support = torch.linspace(-10, 10, 51)
    probability = torch.randn(8, 51).softmax(-1)
    reward, discount = torch.rand(8), torch.full((8,), 0.5)
    mean = project(probability, reward, discount, support) @ support
    torch.testing.assert_close(mean, reward + 0.5 * (probability @ support))


def test_projection_of_a_terminated_step_is_its_reward() -> None:
    support = torch.linspace(-10, 10, 51)
    probability = torch.randn(1, 51).softmax(-1)
    got = project(probability, torch.tensor([2.0]), torch.zeros(1), support)
    torch.testing.assert_close(got, torch.nn.functional.one_hot(torch.tensor([30]), 51).float())
