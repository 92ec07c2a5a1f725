"""Targets: n-step returns that stop where an episode does, and C51's projection."""

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
