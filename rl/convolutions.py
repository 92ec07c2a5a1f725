"""The convolutions of Mnih et al. 2015, which the networks of on-policy agents share."""

from __future__ import annotations

from torch import Tensor, nn

from rl.fast.precision import scaled
from rl.layers import RELU_GAIN, orthogonal_

KERNELS = ((8, 4), (4, 2), (3, 1))  # size and stride
SMALLEST = 36  # pixels a side, of which one position remains


class Convolutions(nn.Sequential):
    """Conv 8×8/4, 4×4/2 and 3×3/1, unpadded, ReLU after each: bytes (B, C, H, W) -> (B, c, h, w).

    Weights begin orthogonal, biases zero. `shape` is (c, h, w), 7×7 for images of 84×84.
    """

    def __init__(self, image: tuple[int, int, int], channels: tuple[int, int, int]) -> None:
        """`image` is (C, H, W). Raises ValueError if it is too small."""
        inputs, height, width = image
        if min(height, width) < SMALLEST:
            raise ValueError(f"image: {height}x{width}, must be at least {SMALLEST}x{SMALLEST}")
        layers: list[nn.Module] = []
        for outputs, (size, stride) in zip(channels, KERNELS, strict=True):
            layers += [orthogonal_(nn.Conv2d(inputs, outputs, size, stride), RELU_GAIN), nn.ReLU()]
            height, width = (height - size) // stride + 1, (width - size) // stride + 1
            inputs = outputs
        super().__init__(*layers)
        self.shape = inputs, height, width

    def forward(self, image: Tensor) -> Tensor:
        """Scale the bytes to 0…1, then apply all layers."""
        x = scaled(image)
        for layer in self:
            x = layer(x)
        return x
