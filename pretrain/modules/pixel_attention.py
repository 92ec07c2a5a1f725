"""PiCANet's attention: each pixel weighs the features of others, near it or in the whole map.

Liu, Han and Yang, "PiCANet: Learning Pixel-wise Contextual Attention for Saliency Detection" (CVPR
2018), sec. 3. (ViSaRL's released code sums 49 neighbouring positions for each of the 49 weights'
rows; the test shows the sum over taps.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE, DILATION = 7, 2  # of local attention's neighbourhood
REACH = SIDE // 2 * DILATION  # pixels from its centre to its border
GRID = 10  # positions along each side in global attention


def taps() -> list[tuple[int, int]]:
    """Row and column of each of the 49 neighbours, from the corner of the padded features."""
    return [(DILATION * row, DILATION * column) for row in range(SIDE) for column in range(SIDE)]


def attend(features: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of each pixel's 49 neighbours, zero beyond the border: (B, H, W, C) and
    (B, H, W, 49) -> (B, H, W, C).

    Channels are last in memory, and neighbours are added one by one, so no 49 copies of the
    features are made. Half precision is summed in float32.
    """
    padded = F.pad(features, (0, 0, REACH, REACH, REACH, REACH))
    height, width = features.shape[1:3]
    total = torch.zeros_like(features, dtype=_sum_type(features))
    for tap, (row, column) in enumerate(taps()):
        neighbour = padded[:, row : row + height, column : column + width]
        total.addcmul_(neighbour, weights[..., tap : tap + 1])
    return total.to(features.dtype)


def _sum_type(features: Tensor) -> torch.dtype:
    return torch.promote_types(features.dtype, torch.float32)


class Attend(torch.autograd.Function):
    """`attend` with an explicit gradient: autograd would allocate a padded map a neighbour."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weights: Tensor) -> Tensor:
        """As `attend`."""
        ctx.save_for_backward(features, weights)
        return attend(features, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the features and of the weights."""
        features, weights = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        padded = F.pad(features, (0, 0, REACH, REACH, REACH, REACH))
        height, width = features.shape[1:3]
        for_padded = torch.zeros_like(padded, dtype=_sum_type(padded))
        for_weights = torch.empty_like(weights)
        for tap, (row, column) in enumerate(taps()):
            there = slice(None), slice(row, row + height), slice(column, column + width)
            for_weights[..., tap] = (gradient * padded[there]).sum(-1)
            for_padded[there].addcmul_(gradient, weights[..., tap : tap + 1])
        inside = slice(REACH, -REACH)
        return for_padded[:, inside, inside].to(features.dtype), for_weights


class Local(nn.Module):
    """Attention over the neighbours: features (B, C, H, W) -> context (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(channels, 128, SIDE, padding=REACH, dilation=DILATION)
        self.weigh = nn.Conv2d(128, SIDE**2, 1)
        self.norm = nn.BatchNorm2d(SIDE**2)

    def forward(self, x: Tensor) -> Tensor:
        """The context of each pixel."""
        weights = self.norm(self.weigh(F.relu(self.around(x)))).softmax(1).to(x.dtype)
        x, weights = (each.permute(0, 2, 3, 1).contiguous() for each in (x, weights))
        weighted: Callable[[Tensor, Tensor], Tensor] = Attend.apply if x.requires_grad else attend
        return weighted(x, weights).permute(0, 3, 1, 2)


class Global(nn.Module):
    """Attention over a grid of the whole map; a ReNet gives each pixel's weights: bidirectional
    LSTMs along the columns and then the rows. (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.stride = -(-side // GRID)
        self.down = nn.LSTM(channels, 256, batch_first=True, bidirectional=True)
        self.across = nn.LSTM(512, 256, batch_first=True, bidirectional=True)
        self.weigh = nn.Conv2d(512, len(range(0, side, self.stride)) ** 2, 1)
        self.norm = nn.BatchNorm2d(self.weigh.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """The context of each pixel."""
        batch, _, height, width = x.shape
        columns, _ = self.down(x.permute(0, 3, 2, 1).flatten(0, 1))  # (B W, H, 512)
        rows = columns.view(batch, width, height, -1).transpose(1, 2).flatten(0, 1)
        hidden = self.across(rows)[0].view(batch, height, width, -1).permute(0, 3, 1, 2)
        weights = self.norm(self.weigh(hidden)).softmax(1).flatten(2).to(x.dtype)  # (B, taps, H W)
        grid = x[:, :, :: self.stride, :: self.stride].flatten(2)  # (B, C, taps)
        context: Tensor = grid @ weights
        return context.view_as(x)
