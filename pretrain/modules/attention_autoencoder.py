"""Self-supervised attention: an autoencoder whose bottleneck is an attention mask.

Wu, Khetarpal and Precup, "Self-Supervised Attention-Aware Reinforcement Learning" (AAAI 2021),
eq. 1 to 3. A target frame is reconstructed from its own features where its mask is near 1, and from
those of another frame of the episode, the source, where both masks are near 0. The loss penalises
the mask's mean.

The paper's appendix is not available, so sizes, losses and detached gradients are those of the
released code:

- everything of the source side is detached (as in Transporter), which the paper does not say;
- the autoencoder's second output reconstructs from the target's features; the paper's text says
  from its mask, which is an error;
- δ is a threshold of the squared error of a pixel, and the three terms are means over pixels and
  cells where eq. 2 has sums;
- Ψ alone has layer norms, though the code's settings have them off everywhere.

Expect 53,376 parameters of Φ, 92,513 of Ψ and 84,225 of the decoder on images of 84x84 in gray.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

# Filters, kernel and stride of each convolution, unpadded: A2C's own, so that the grids agree.
CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (32, 3, 1))
LAST = 16  # input channels of the decoder's last convolution

Shape = tuple[int, int, int]  # of an image: channels, height, width


def sizes(shape: Shape) -> list[tuple[int, int]]:
    """Height and width of the image and of the map after each convolution.

    Raises ValueError for an image that is too small for them.
    """
    height, width = shape[1:]
    grids = [(height, width)]
    for _, kernel, stride in CONVOLUTIONS:
        if min(height, width) < kernel:
            raise ValueError(f"image_shape: {shape}, must be at least 36 pixels high and wide")
        height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
        grids.append((height, width))
    return grids


def _convolutions(channels: int) -> Iterator[nn.Conv2d]:
    for filters, kernel, stride in CONVOLUTIONS:
        yield nn.Conv2d(channels, filters, kernel, stride)
        channels = filters


class Features(nn.Sequential):
    """Φ: images (B, C, H, W) in [0, 1] -> features (B, 32, h, w)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        for convolution in _convolutions(shape[0]):
            self.extend([convolution, nn.ReLU()])


class Mask(nn.Sequential):
    """Ψ, the mask generator: images (B, C, H, W) in [0, 1] -> (B, 1, h, w) in [0, 1]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        for convolution, size in zip(_convolutions(shape[0]), sizes(shape)[1:], strict=True):
            norm = nn.LayerNorm([convolution.out_channels, *size])
            self.extend([convolution, norm, nn.ReLU()])
        self.extend([nn.Conv2d(CONVOLUTIONS[-1][0], 1, 1), nn.Sigmoid()])


class Decoder(nn.Sequential):
    """Features (B, 32, h, w) -> images (B, C, H, W), not bounded."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        channels, grids = CONVOLUTIONS[-1][0], sizes(shape)
        outputs = [filters for filters, _, _ in CONVOLUTIONS[-2::-1]] + [LAST]
        for (_, kernel, stride), grid, filters in zip(
            CONVOLUTIONS[::-1], grids[-2::-1], outputs, strict=True
        ):
            rest = [(side - kernel) % stride for side in grid]  # pixels beyond the last kernel
            up = nn.ConvTranspose2d(
                channels, filters, kernel, stride, output_padding=(rest[0], rest[1])
            )
            self.extend([up, nn.ReLU()])
            channels = filters
        self.append(nn.Conv2d(channels, shape[0], 3, padding=1))


@dataclass(frozen=True)
class Reconstruction:
    """The outputs for a pair of frames (eq. 1)."""

    target: Tensor  # (B, C, H, W), from masked features of both
    auto: Tensor  # (B, C, H, W), from all of the target's features
    mask: Tensor  # (B, 1, h, w), the target's

    def float(self) -> Reconstruction:
        """The same in float32."""
        return Reconstruction(self.target.float(), self.auto.float(), self.mask.float())


class AttentionAutoencoder(nn.Module):
    """Φ, Ψ and the decoder, trained together. Not initialised."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.features, self.mask, self.decoder = Features(shape), Mask(shape), Decoder(shape)

    def initialise(self, seed: int) -> None:
        """Orthogonal weights, gain √2 before a ReLU and in the last layer, 1 before the sigmoid."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                gain = 1.0 if module is self.mask[-2] else math.sqrt(2)
                nn.init.orthogonal_(module.weight, gain, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, source: Tensor, target: Tensor) -> Reconstruction:
        """Reconstruct targets from sources, both (B, C, H, W) in [0, 1]."""
        with torch.no_grad():
            background = self.features(source) * (1 - self.mask(source))
        features, mask = self.features(target), self.mask(target)
        mixture = (1 - mask) * background + mask * features
        reconstruction, auto = self.decoder(torch.cat([mixture, features])).chunk(2)
        return Reconstruction(reconstruction, auto, mask)


def attention_loss(
    output: Reconstruction,
    target: Tensor,
    *,
    delta: float,
    sparsity: float,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Eq. 2: the squared error where it is at least `delta` (eq. 3), the plain autoencoder's
    squared error, and the mask's size.

    With `mean`, as in the released code, each term is a mean over pixels or cells and `sparsity`
    weighs the mean of the mask. With `sum`, as in the paper, each is a sum, averaged over the
    batch, and λ_m is the equivalent `sparsity` x pixels / cells, 0.144 at the defaults. This is the
    same loss times 7,056.
    """
    error = (output.target - target).square()
    foreground = torch.where(error >= delta, error, 0)
    plain = (output.auto - target).square()
    if reduction == "mean":
        return foreground.mean() + plain.mean() + sparsity * output.mask.mean()
    batch, pixels, cells = len(target), target[0].numel(), output.mask[0].numel()
    equivalent = sparsity * pixels / cells
    return (foreground.sum() + plain.sum() + equivalent * output.mask.sum()) / batch
