"""Returns of rollouts against plain loops, against torchrl, and against one another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rl.returns import discounted, gae, vtrace

STEPS, ENVS = 9, 4
TORCHRL = Path(__file__).with_name("torchrl_returns.json")


def rollout(seed: int = 0, ends: float = 0.25) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """reward, discount, value, last_value and log_ratio of 64-bit random numbers."""
    torch.manual_seed(seed)
    reward, value, log_ratio = torch.randn(3, STEPS, ENVS, dtype=torch.float64)
    discount = 0.9 * (torch.rand(STEPS, ENVS) > ends).double()
    return reward, discount, value, torch.randn(ENVS, dtype=torch.float64), log_ratio / 2


@pytest.mark.parametrize("seed", range(5))
def test_discounted_returns_are_the_plain_sum(seed: int) -> None:
    reward, discount, _, last_value, _ = rollout(seed)
    returns = discounted(reward, discount, last_value)
    for env in range(ENVS):
        for start in range(STEPS):
            total, weight = 0.0, 1.0
            for t in range(start, STEPS):
                total += weight * float(reward[t, env])
                weight *= float(discount[t, env])
            total += weight * float(last_value[env])
            assert float(returns[start, env]) == pytest.approx(total)


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_gae_is_the_weighted_sum_of_temporal_difference_errors(lam: float) -> None:
    reward, discount, value, last_value, _ = rollout()
    advantage = gae(reward, discount, value, last_value, lam)
    values = torch.cat([value, last_value[None]])
    for env in range(ENVS):
        for start in range(STEPS):
            total, weight = 0.0, 1.0
            for t in range(start, STEPS):
                error = reward[t, env] + discount[t, env] * values[t + 1, env] - values[t, env]
                total += weight * float(error)
                weight *= lam * float(discount[t, env])
            assert float(advantage[start, env]) == pytest.approx(total)


@pytest.mark.parametrize("seed", range(3))
def test_vtrace_is_equation_1(seed: int) -> None:
    """v_s = V_s + Σ_t γ^(t-s) (Π c_i) δ_t, each product written out."""
    reward, discount, value, last_value, log_ratio = rollout(seed)
    target, advantage = vtrace(reward, discount, value, last_value, log_ratio)
    values, ratio = torch.cat([value, last_value[None]]), log_ratio.exp()
    targets = torch.cat([target, last_value[None]])
    for env in range(ENVS):
        for start in range(STEPS):
            total, weight = float(value[start, env]), 1.0
            for t in range(start, STEPS):
                rho = min(1.0, float(ratio[t, env]))
                error = reward[t, env] + discount[t, env] * values[t + 1, env] - values[t, env]
                total += weight * rho * float(error)
                weight *= float(discount[t, env]) * rho
            assert float(target[start, env]) == pytest.approx(total)
            step = reward[start, env] + discount[start, env] * targets[start + 1, env]
            expected = min(1.0, float(ratio[start, env])) * float(step - value[start, env])
            assert float(advantage[start, env]) == pytest.approx(expected)


def test_vtrace_on_policy_is_the_return_of_lambda_1() -> None:
    reward, discount, value, last_value, _ = rollout()
    target, advantage = vtrace(reward, discount, value, last_value, torch.zeros_like(value))
    returns = discounted(reward, discount, last_value)
    torch.testing.assert_close(target, returns)
    torch.testing.assert_close(advantage, returns - value)
    torch.testing.assert_close(gae(reward, discount, value, last_value, 1.0) + value, returns)


def test_a_rollout_with_an_end_is_its_episodes_split_apart() -> None:
    reward, discount, value, last_value, log_ratio = rollout(ends=0.0)
    end, first, rest = 3, slice(0, 4), slice(4, None)
    discount[end] = 0
    nothing = torch.full_like(last_value, 7.0)  # an ended episode's last value counts for nothing

    def split(*tensors: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return [each[first] for each in tensors], [each[rest] for each in tensors]

    (r, d, v, w), (r2, d2, v2, w2) = split(reward, discount, value, log_ratio)
    for whole, before, after in [
        (
            discounted(reward, discount, last_value),
            discounted(r, d, nothing),
            discounted(r2, d2, last_value),
        ),
        (
            gae(reward, discount, value, last_value, 0.95),
            gae(r, d, v, nothing, 0.95),
            gae(r2, d2, v2, last_value, 0.95),
        ),
        *zip(
            vtrace(reward, discount, value, last_value, log_ratio),
            vtrace(r, d, v, nothing, w),
            vtrace(r2, d2, v2, last_value, w2),
            strict=True,
        ),
    ]:
        assert torch.equal(whole, torch.cat([before, after]))


def test_gae_and_vtrace_are_torchrls() -> None:
    stored = json.loads(TORCHRL.read_text())
    reward, discount, value, last_value, log_ratio = (
        torch.tensor(stored[name], dtype=torch.float64)
        for name in ("reward", "discount", "value", "last_value", "log_ratio")
    )
    advantage = gae(reward, discount, value, last_value, stored["lam"])
    target, policy_advantage = vtrace(reward, discount, value, last_value, log_ratio)
    for ours, name in [
        (advantage, "gae"),
        (target, "vtrace_target"),
        (policy_advantage, "vtrace_advantage"),
    ]:
        expected = torch.tensor(stored[name], dtype=torch.float64)
        torch.testing.assert_close(ours, expected, atol=5e-6, rtol=0)
