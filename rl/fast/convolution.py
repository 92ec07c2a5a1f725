"""The first convolution on bytes, twice as fast on a CPU as torch's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PatchConv2d(nn.Conv2d):
    """A convolution whose square kernels do not overlap, on bytes scaled to 0…1.

    The plain form is `nn.Conv2d` on `image / 255`. CPU convolutions are fast with channels last,
    and interleaving 12 planes of bytes is slow. Since the kernels do not overlap, the pixels of a
    row can be the channels (they are last already) and the planes the depth: a 3-D convolution
    whose kernel spans all planes and has width 1.
    """

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        """Adjacent kernels of size x size."""
        super().__init__(inputs, outputs, size, stride=size)
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> (B, outputs, H // size, W // size)."""
        size, (channels, _, width) = self.size, image.shape[1:]
        rows = image[..., : width - width % size]
        x = rows.to(torch.float32, memory_format=torch.contiguous_format)
        x = x.view(*x.shape[:-1], -1, size).permute(0, 4, 1, 2, 3)  # (B, size, C, H, W/size)
        kernel = (self.weight / 255).permute(0, 3, 1, 2)[..., None]
        return F.conv3d(x, kernel, self.bias, stride=(channels, size, 1)).squeeze(2)
