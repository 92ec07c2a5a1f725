"""A control: the distance from the data set's median frame, its background. Nothing is learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pretrain import encoder
from pretrain.modules.maps import unit_range


@dataclass(frozen=True)
class Config(encoder.SaliencyConfig):
    """No settings."""


class Saliency(encoder.Saliency):
    """(B, C, H, W) uint8 -> (B, 1, H, W) float32: distance from the median frame, 0 to 1."""

    median: Tensor

    def __init__(self, config: Config, image_shape: encoder.Shape) -> None:
        super().__init__(config, image_shape)
        self.register_buffer("median", torch.zeros(image_shape, dtype=torch.uint8))

    def forward(self, image: Tensor) -> Tensor:
        """Mean absolute difference over the channels, scaled to [0, 1] in each frame."""
        distance = (image.float() - self.median.float()).abs().mean(dim=1, keepdim=True)
        return unit_range(distance)


def fit(config: Config, images: Tensor) -> Saliency:
    """The source for a data set, images (N, C, H, W) uint8: the upper median of every pixel."""
    count, channels, height, width = images.shape
    source = Saliency(config, (channels, height, width))
    pixels, middle = images.numpy(), count // 2
    for row in range(height):  # so that a set of gigabytes is never copied whole
        median = np.partition(pixels[:, :, row], middle, axis=0)[middle]
        source.median[:, row] = torch.from_numpy(median)
    return source
