"""Which patches to keep, from their errors: as many as the frame deserves, or as many as asked for.

SPIRL §4.2 keeps the patches past the point of the absolute Lorenz curve (errors summed from the
smallest, both axes running from 0 to 1) where its slope is 45°. The curve's slope at a patch is
that patch's error over the mean error, so they are the patches whose error exceeds `slope` times
the mean. Every function returns (index (B, K) int64, mask (B, K) bool): the kept patches in
row-major order, then padding, whose index is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lorenz(error: Tensor) -> Tensor:
    """The absolute Lorenz curve: (B, N) -> (B, N + 1), from 0 to 1."""
    curve = error.double().sort(dim=1).values.cumsum(1)
    return torch.nn.functional.pad(curve / curve[:, -1:], (1, 0))


def dynamic(error: Tensor, slope: float, k_max: int) -> tuple[Tensor, Tensor]:
    """The patches where the Lorenz curve is steeper than `slope` (1 is 45°), the `k_max` worst of
    them at most.

    A frame keeps at least one patch, even where all errors are equal.
    """
    return _worst(error, salient(error, slope)[:, None].clamp(1, k_max), k_max)


def salient(error: Tensor, slope: float) -> Tensor:
    """How many patches lie past the cut, without any limit: (B, N) -> (B,) int64."""
    return (error > slope * error.mean(dim=1, keepdim=True)).sum(1)


def fixed(error: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` patches with the largest errors."""
    return _worst(error, torch.full_like(error[:, :1], k, dtype=torch.int64), k)


def every(batch: int, patches: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """All patches, without looking at errors (MAE-All in SPIRL's Table 1)."""
    index = torch.arange(patches, device=device).repeat(batch, 1)
    return index, torch.ones_like(index, dtype=torch.bool)


def _worst(error: Tensor, count: Tensor, width: int) -> tuple[Tensor, Tensor]:
    patches = error.shape[1]
    index = error.argsort(dim=1, descending=True, stable=True)[:, :width]
    mask = torch.arange(width, device=error.device) < count
    # Row-major order: two errors that are almost equal then cannot swap rows. N marks padding, so
    # that sorts last.
    index = index.masked_fill(~mask, patches).sort(dim=1).values
    return index.masked_fill(~mask, 0), mask
