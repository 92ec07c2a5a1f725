"""A control: a random map, the same for the same frame. Nothing is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.checked import Natural, Range
from pretrain import encoder

_PRIME = (1 << 31) - 1  # products of two numbers below it fit 63 bits


@dataclass(frozen=True)
class Config(encoder.SaliencyConfig):
    """The number of cells, and the seed."""

    cells: Annotated[int, Range(1, 1024)] = 12  # along each side
    seed: Natural = 0


class Saliency(encoder.Saliency):
    """(B, C, H, W) uint8 -> (B, 1, H, W) float32 in [0, 1): uniform cells, a hash of the frame."""

    keys: Tensor
    cells: Tensor

    def __init__(self, config: Config, image_shape: encoder.Shape) -> None:
        super().__init__(config, image_shape)
        generator = torch.Generator().manual_seed(config.seed)
        channels, height, width = image_shape
        keys = torch.randint(1, _PRIME, (channels * height * width,), generator=generator)
        cells = torch.randint(1, _PRIME, (3, config.cells**2), generator=generator)
        self.register_buffer("keys", keys, persistent=False)
        self.register_buffer("cells", cells, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """One map a frame."""
        frame = (image.flatten(1) * self.keys).sum(1, keepdim=True) % _PRIME
        # A random polynomial of degree two per cell, modulo a prime: uniform, and independent
        # between frames and cells.
        value = ((self.cells[0] * frame + self.cells[1]) % _PRIME * frame + self.cells[2]) % _PRIME
        blocks = (value.double() / _PRIME).float().clamp(max=1 - 2**-24)
        side = self.config.cells
        return F.interpolate(blocks.view(-1, 1, side, side), size=image.shape[2:], mode="nearest")


def fit(config: Config, images: Tensor) -> Saliency:
    """The source for images (N, C, H, W); only their size is used."""
    channels, height, width = images.shape[1:]
    return Saliency(config, (channels, height, width))
