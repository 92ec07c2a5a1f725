"""Selection of patches by their errors: dynamic masking (SPIRL §4.2), or a fixed number.

SPIRL §4.2 sorts the errors and sums them from the smallest, with both axes scaled to 0 to 1: the
absolute Lorenz curve. Its slope at a patch is that patch's error over the mean error. The selected
patches are those beyond the point where the slope is 45°. The text allows two definitions of it:

slope     every patch whose error exceeds `slope` x the mean error.
released  the authors' code: the slope at the i-th smallest error is a central difference, the mean
          of errors i and i + 1 over the mean error. The patches are selected from the i on whose
          slope is nearest to `slope`, i included. The first and the last patch are never the cut.

The second selects 0 to 3 patches more. The authors' setting compares the difference of two steps
with the length of one, so it is `slope: 0.5` here.

A selection is (index (B, K) int64, mask (B, K) bool): the selected patches in row-major order, then
padding, whose index is 0.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Cut = Literal["slope", "released"]


def lorenz(error: Tensor) -> Tensor:
    """The absolute Lorenz curve: (B, N) -> (B, N + 1), from 0 to 1."""
    curve = error.double().sort(dim=1).values.cumsum(1)
    return torch.nn.functional.pad(curve / curve[:, -1:], (1, 0))


def dynamic(error: Tensor, slope: float, k_max: int, cut: Cut = "slope") -> tuple[Tensor, Tensor]:
    """The patches beyond the cut of the Lorenz curve at `slope` (1 is 45°): at least one, and at
    most the `k_max` with the largest errors.
    """
    return _worst(error, salient(error, slope, cut)[:, None].clamp(1, k_max), k_max)


def salient(error: Tensor, slope: float, cut: Cut = "slope") -> Tensor:
    """The number of patches beyond the cut, without a limit: (B, N) -> (B,) int64."""
    mean = error.mean(dim=1, keepdim=True)
    if cut == "slope" or error.shape[1] < 3:  # a central difference needs three
        return (error > slope * mean).sum(1)
    ordered = error.sort(dim=1).values
    slopes = (ordered[:, 1:-1] + ordered[:, 2:]) / (2 * mean)
    return error.shape[1] - 1 - (slopes - slope).abs().argmin(dim=1)


def fixed(error: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` patches with the largest errors."""
    return _worst(error, torch.full_like(error[:, :1], k, dtype=torch.int64), k)


def every(batch: int, patches: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """All patches, whatever their errors (MAE-All in SPIRL's Table 1)."""
    index = torch.arange(patches, device=device).repeat(batch, 1)
    return index, torch.ones_like(index, dtype=torch.bool)


def _worst(error: Tensor, count: Tensor, width: int) -> tuple[Tensor, Tensor]:
    patches = error.shape[1]
    index = error.argsort(dim=1, descending=True, stable=True)[:, :width]
    mask = torch.arange(width, device=error.device) < count
    # Row-major order, so that two almost equal errors cannot swap rows. N marks padding, which so
    # comes last.
    index = index.masked_fill(~mask, patches).sort(dim=1).values
    return index.masked_fill(~mask, 0), mask
