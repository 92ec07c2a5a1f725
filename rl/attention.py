"""Soft attention over the positions of a feature map, and its place in the image.

The modules are those that Nikulin et al., "Free-Lunch Saliency via Attention in Atari Agents"
(2019), compare (Fig. 1): (B, C, h, w) -> (B, 1, h, w) float32, not negative. All convolutions begin
with orthogonal weights at ReLU's gain and zero biases, as in the released code.

A position's receptive field is the part of the image that it depends on. A saliency map has for
each pixel the sum of the attention of all positions whose receptive field includes it. The paper
computes it by a transposed convolution with a kernel of ones; here it is the product with two
matrices of zeros and ones, which is equal and costs nothing beside the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl.layers import RELU_GAIN, orthogonal_

HIDDEN, REGION_HIDDEN, REGIONS = 256, 512, 2  # channels


class FreeLunch(nn.Module):
    """The FLS module (Fig. 1f): two convolutions, ReLU between them, SoftPlus after them."""

    def __init__(
        self, channels: int, *, size: int = 3, beta: float = 1.0, normalised: bool = False
    ) -> None:
        """SoftPlus is log(1 + exp(βx)) / β; with β = log 2 it is SoftPlus₂, which is 1 at 0.

        `normalised` divides the map by its sum.
        """
        super().__init__()
        self.hidden = _convolution(channels, HIDDEN, size)
        self.score = _convolution(HIDDEN, 1, size)
        self.beta, self.normalised = beta, normalised

    def forward(self, features: Tensor) -> Tensor:
        """The attention, unbounded above if it is not normalised."""
        score = self.score(F.relu(self.hidden(features))).float()
        attention = F.softplus(score, self.beta)
        return attention / attention.sum((2, 3), keepdim=True) if self.normalised else attention


class Softmax(nn.Module):
    """DARQN's attention without recurrence (Sorokin et al. 2015; Fig. 1d): its sum is 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = _convolution(channels, HIDDEN, 1)
        self.score = _convolution(HIDDEN, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Tanh between two 1x1 convolutions, and the softmax over all positions."""
        return over_positions(self.score(self.hidden(features).tanh()))


class RegionSensitive(nn.Module):
    """The region-sensitive module of Yang et al. 2018 (Fig. 1c): the sum of two maps of sum 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = _convolution(channels, REGION_HIDDEN, 1)
        self.score = _convolution(REGION_HIDDEN, REGIONS, 1)

    def forward(self, features: Tensor) -> Tensor:
        """It reads each position's features divided by their L2 norm."""
        hidden = F.elu(self.hidden(F.normalize(features, dim=1, eps=1e-6)))
        return over_positions(self.score(hidden)).sum(1, keepdim=True)


def over_positions(score: Tensor) -> Tensor:
    """The softmax of each map of (B, K, h, w) over its positions, in float32."""
    return score.float().flatten(2).softmax(-1).view(score.shape)


def _convolution(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    """A convolution that keeps the map's height and width."""
    return orthogonal_(nn.Conv2d(inputs, outputs, size, padding="same"), RELU_GAIN)


class Field(NamedTuple):
    """A convolution, or the receptive field of several: sizes in pixels of its input.

    Position i depends on the `size` pixels from stride * i - padding on.
    """

    size: int
    stride: int
    padding: int


def receptive_field(layers: Sequence[Field]) -> Field:
    """The field of a position after these layers, in pixels before the first of them."""
    size, stride, padding = 1, 1, 0
    for layer in layers:
        size += (layer.size - 1) * stride
        padding += layer.padding * stride
        stride *= layer.stride
    return Field(size, stride, padding)


def positions(pixels: int, layers: Sequence[Field]) -> int:
    """The number of positions along one side after these layers."""
    for layer in layers:
        pixels = (pixels + 2 * layer.padding - layer.size) // layer.stride + 1
    return pixels


def coverage(pixels: int, positions: int, field: Field) -> Tensor:
    """Which positions' fields include a pixel, along one side: (pixels, positions) of 0 and 1."""
    begin = torch.arange(positions) * field.stride - field.padding
    offset = torch.arange(pixels)[:, None] - begin
    return ((offset >= 0) & (offset < field.size)).float()


class Spread(nn.Module):
    """Attention maps after some of a network's layers -> one saliency map (B, 1, H, W) in [0, 1].

    Every map is summed over the receptive fields of its positions, on the positions of the first
    attended layer, and the sum of them in the same way on the pixels. The maximum of a saliency map
    is 1. An all-zero one stays so.
    """

    def __init__(
        self, image: tuple[int, int], layers: Sequence[Field], after: Sequence[int]
    ) -> None:
        """`image` is (H, W); `after` are the numbers of the attended layers, ascending from 1."""
        super().__init__()
        self.count = len(after)
        for index, number in enumerate(after):
            for side, pixels in zip(("rows", "columns"), image, strict=True):
                matrix = _through(pixels, layers[: after[0]], layers[after[0] : number])
                self.register_buffer(f"{side}_{index}", matrix, persistent=False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, 1, h, w), in the order of the layers; no gradient reaches them."""
        assert len(maps) == self.count
        total = torch.stack([self._on_image(index, each) for index, each in enumerate(maps)]).sum(0)
        peak = total.amax((2, 3), keepdim=True)
        return total / peak.clamp_min(torch.finfo(total.dtype).tiny)

    def _on_image(self, index: int, attention: Tensor) -> Tensor:
        rows, columns = (self.get_buffer(f"{side}_{index}") for side in ("rows", "columns"))
        return (rows @ attention.detach() @ columns.mT).float()


def _through(pixels: int, before: Sequence[Field], behind: Sequence[Field]) -> Tensor:
    """From positions after all layers to those after the layers `before`, and on to the pixels."""
    middle = positions(pixels, before)
    on_pixels = coverage(pixels, middle, receptive_field(before))
    return on_pixels @ coverage(middle, positions(middle, behind), receptive_field(behind))
