"""Random augmentation of training frames: colours as torchvision's ColorJitter, mirror images.

The random numbers are the generator's, which depends on the step alone (schedule.noise). Each of
several processes uses its share of them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import functional as T


def mirror(images: Tensor, rng: np.random.Generator, share: slice) -> Tensor:
    """Each of the images (B, C, H, W) flipped left to right with probability 1/2."""
    flips = torch.from_numpy(rng.random(_whole(images, share))[share] < 0.5).to(images.device)
    return torch.where(flips[:, None, None, None], images.flip(3), images)


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
    """Images (B, 3, H, W) in [0, 1], each with its own four changes in a random order: factors from
    1 - strength to 1 + strength, and a rotation of the hue by up to `hue` of the circle.
    """
    whole = _whole(images, share)
    strength = np.array([brightness, contrast, saturation, hue])
    change = np.array([1, 1, 1, 0]) + strength * rng.uniform(-1, 1, (whole, 4))
    order = rng.permuted(np.tile(np.arange(4), (whole, 1)), axis=1)
    adjust = (T.adjust_brightness, T.adjust_contrast, T.adjust_saturation, T.adjust_hue)
    results = []
    for image, amounts, steps in zip(images, change[share], order[share], strict=True):
        for step in steps.tolist():
            image = adjust[step](image, float(amounts[step]))
        results.append(image)
    return torch.stack(results)


def _whole(images: Tensor, share: slice) -> int:
    return len(images) * (share.step or 1)
