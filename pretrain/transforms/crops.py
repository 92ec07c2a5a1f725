"""Crops and mirror images of a batch, computed on its device: torchvision's RandomResizedCrop.

Szegedy et al., "Going deeper with convolutions" (2015), with the settings of MAE and MultiMAE. All
channels of an image have the same crop, so a frame and its map stay aligned.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

SCALE = (0.2, 1.0)  # of the image's area
RATIO = (0.75, 4 / 3)  # width over height
TRIES = 10  # of a box that fits; if none does, the largest one at the centre is used


def boxes(rng: np.random.Generator, count: int, size: tuple[int, int]) -> NDArray[np.int64]:
    """Random boxes in images of (height, width) pixels: (count, 4) of top, left, height, width."""
    height, width = size
    area = rng.uniform(*SCALE, (count, TRIES)) * height * width
    ratio = np.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1]), (count, TRIES)))
    sides = np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio)], -1).round().astype(np.int64)
    fits = np.logical_and.reduce((sides >= 1) & (sides <= np.array(size)), axis=2)
    fitting = np.logical_or.reduce(fits, axis=1, keepdims=True)
    largest = min(height, round(width / RATIO[0])), min(width, round(height * RATIO[1]))
    box = np.where(fitting, sides[np.arange(count), fits.argmax(axis=1)], largest)
    room = np.array(size) - box
    corner = np.where(fitting, np.floor(rng.random((count, 2)) * (room + 1)), room // 2)
    return np.concatenate([corner.astype(np.int64), box], axis=1)


def crop(images: Tensor, boxes: Tensor, mirrored: Tensor) -> Tensor:
    """The boxes (B, 4) of `images` (B, C, H, W), each resized to H x W, bilinear, and flipped left
    to right where `mirrored` (B,) is true.
    """
    height, width = images.shape[2:]
    top, left, rows, columns = boxes.to(images.device).float().T[..., None].unbind()
    y = _centres(top, rows, height)
    x = _centres(left, columns, width)
    x = torch.where(mirrored.to(images.device)[:, None], x.flip(1), x)
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[..., None].expand(-1, -1, width)], -1)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _centres(start: Tensor, length: Tensor, size: int) -> Tensor:
    """The coordinates (B, size) at which `size` pixels sample a box, in grid_sample's -1 to 1.

    They stay within the centres of the box's outermost pixels.
    """
    at = (torch.arange(size, device=start.device) + 0.5) * length / size
    inside = torch.minimum(at.clamp_min(0.5), length - 0.5)
    return (start + inside) * 2 / size - 1
