"""Arithmetic of saliency maps: scaling to the unit range, and the centre prior."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_range(values: Tensor) -> Tensor:
    """Each map (B, 1, h, w) shifted and scaled to [0, 1]; a constant one becomes zero."""
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    return (values - low) / (high - low).clamp_min(torch.finfo(values.dtype).tiny)


def centre_prior(height: int, width: int, sigma: float) -> Tensor:
    """(height, width): a Gaussian about the centre, where it is 1; `sigma` is a share of a side."""

    def falloff(size: int) -> Tensor:
        offset = (torch.arange(size) - (size - 1) / 2) / (sigma * size)
        return (-offset.square() / 2).exp()

    return falloff(height)[:, None] * falloff(width)
