"""Targets: n-step returns that stop where an episode does, C51's projection, and the returns of
on-policy rollouts.

Those of rollouts are functions of (reward, discount, value, last_value), time first: (T, B) and for
`last_value`, V of the observation after the last step, (B,). `discount` is γ, or 0 where the
episode ended; there is no other flag, so what follows an end never reaches what is before it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def n_step(
    reward: Tensor, terminated: Tensor, truncated: Tensor, gamma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Discounted sums over windows of n consecutive steps, each cut after its episode's last step.

    All inputs are (B, n). Returns the return (B,), the bootstrap discount (B,): γ^m, or 0 where
    the episode terminated inside the window, and the number m of steps that count (B,) int64.
    A truncation cuts the window like a termination but keeps the bootstrap.
    """
    ended = (terminated | truncated).long()
    counts = (ended.cumsum(1) - ended) == 0  # no end before this step
    powers = gamma ** torch.arange(reward.shape[1], device=reward.device, dtype=reward.dtype)
    length = counts.sum(1)
    discount = gamma ** length.to(reward.dtype)
    discount = discount * ~(terminated & counts).any(1)
    return (reward * counts * powers).sum(1), discount, length


def project(probability: Tensor, reward: Tensor, discount: Tensor, support: Tensor) -> Tensor:
    """The distribution of r + d·Z put back on Z's evenly spaced atoms (C51, algorithm 1).

    `probability` is (B, atoms), `reward` and `discount` (B,), `support` (atoms,). Every shifted
    atom shares its mass between its two neighbours by nearness, which is a triangular kernel;
    beyond the ends everything falls on the last atom.
    """
    low, high = support[0], support[-1]
    spacing = (high - low) / (support.shape[0] - 1)
    shifted = reward[:, None] + discount[:, None] * support
    shifted = torch.minimum(torch.maximum(shifted, low), high)
    distance = (shifted[:, None, :] - support[None, :, None]).abs() / spacing  # (B, to, from)
    return torch.einsum("btf,bf->bt", (1 - distance).clamp_min(0), probability)


def discounted(reward: Tensor, discount: Tensor, last_value: Tensor) -> Tensor:
    """Returns R_t = r_t + d_t R_{t+1} (T, B), where R_T is `last_value` (Mnih et al. 2016, S3)."""
    returns, following = torch.empty_like(reward), last_value
    for t in reversed(range(len(reward))):
        following = returns[t] = reward[t] + discount[t] * following
    return returns


def gae(reward: Tensor, discount: Tensor, value: Tensor, last_value: Tensor, lam: float) -> Tensor:
    """Advantages A_t = δ_t + λ d_t A_{t+1} (T, B), δ_t = r_t + d_t V_{t+1} - V_t.

    Schulman et al. 2016, eq. 16, cut off after T steps. A + V are the λ-returns.
    """
    error = reward + discount * torch.cat([value[1:], last_value[None]]) - value
    return discounted(error, lam * discount, torch.zeros_like(last_value))


def vtrace(
    reward: Tensor, discount: Tensor, value: Tensor, last_value: Tensor, log_ratio: Tensor
) -> tuple[Tensor, Tensor]:
    """V-trace targets v_t and policy gradient advantages ρ_t (r_t + d_t v_{t+1} - V_t), (T, B).

    Espeholt et al. 2018, eq. 1 and section 4.2, with ρ̄ = c̄ = 1. `log_ratio` (T, B) is log π/μ of
    the actions taken. Where it is 0, v are the λ-returns of λ = 1.
    """
    ratio = log_ratio.exp().clamp_max(1)
    error = ratio * (reward + discount * torch.cat([value[1:], last_value[None]]) - value)
    target = value + discounted(error, discount * ratio, torch.zeros_like(last_value))
    following = torch.cat([target[1:], last_value[None]])
    return target, ratio * (reward + discount * following - value)
