"""Frames changed at random for training: colours as torchvision's ColorJitter, and mirror images.

The changes depend on the generator alone, so on a step's number (schedule.noise). Of several
processes each takes its share of the same random numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import functional as T


def mirror(images: Tensor, rng: np.random.Generator, share: slice) -> Tensor:
    """Each of the images (B, C, H, W) turned left to right with probability 1/2."""
    turned = torch.from_numpy(rng.random(_whole(images, share))[share] < 0.5).to(images.device)
    return torch.where(turned[:, None, None, None], images.flip(3), images)


def colour_jitter(
    images: Tensor,
    rng: np.random.Generator,
    share: slice,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> Tensor:
    """Images (B, 3, H, W) in [0, 1], each with its own four changes in an order of its own: factors
    from 1 - strength to 1 + strength, and a turn of the hue by up to `hue` circles.
    """
    whole = _whole(images, share)
    strength = np.array([brightness, contrast, saturation, hue])
    change = np.array([1, 1, 1, 0]) + strength * rng.uniform(-1, 1, (whole, 4))
    order = rng.permuted(np.tile(np.arange(4), (whole, 1)), axis=1)
    adjust = (T.adjust_brightness, T.adjust_contrast, T.adjust_saturation, T.adjust_hue)
    changed = []
    for image, amounts, turns in zip(images, change[share], order[share], strict=True):
        for turn in turns.tolist():
            image = adjust[turn](image, float(amounts[turn]))
        changed.append(image)
    return torch.stack(changed)


def _whole(images: Tensor, share: slice) -> int:
    return len(images) * (share.step or 1)
