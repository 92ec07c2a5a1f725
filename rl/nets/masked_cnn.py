"""A mask of where to look on the network's last map: self-supervised attention, in use.

Wu, Khetarpal and Precup, "Self-Supervised Attention-Aware Reinforcement Learning" (AAAI 2021): the
agents' convolutions (rl/convolutions.py, 32 channels in the third), whose map is multiplied by the
mask of the newest frame, the same for all channels; then Linear 512, ReLU. The mask is

- `frozen`: the encoder's (`model: attention`), pretrained offline (Figs. 6 and 7);
- `top_down`: of a mask generator in the network, which the reward alone trains (Fig. 5).

Expect 865,413 parameters at 4 actions with a frozen mask, 957,926 with one of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from datasets.checked import Checked, Width
from pretrain.encoder import Obs
from pretrain.modules.attention_autoencoder import Mask
from rl.convolutions import Convolutions
from rl.fast.precision import scaled
from rl.layers import RELU_GAIN, orthogonal_
from rl.net import Extras
from rl.net import Net as BaseNet

KINDS = ("masked", "pixels")  # of features that it takes


@dataclass(frozen=True)
class Config(Checked):
    """Where the mask is from; channels of the convolutions, and units of the layer after them."""

    mask: Literal["frozen", "top_down"] = "frozen"
    channels: tuple[Width, Width, Width] = (32, 64, 32)
    width: Width = 512


class Net(BaseNet):
    """image (B, S, C, H, W) uint8, and attention (B, S, h, w) of a frozen mask, to (B, width).

    Extra: attention (B, 1, h, w), the mask.
    """

    attends = True

    def __init__(self, config: Config, example: Obs, stack: int) -> None:
        super().__init__()
        if (config.mask == "frozen") != ("attention" in example):
            raise ValueError(
                f"mask: {config.mask}, must be frozen on an encoder that gives masks, and another "
                "on one that gives none"
            )
        channels, height, width = example["image"].shape[1:]
        self.convolutions = Convolutions((stack * channels, height, width), config.channels)
        self.mask = None if config.mask == "frozen" else _mask((channels, height, width))
        project = nn.Linear(math.prod(self.convolutions.shape), config.width)
        self.project = nn.Sequential(orthogonal_(project, RELU_GAIN), nn.ReLU())
        self.width = config.width

    def forward(self, stack: Obs) -> tuple[Tensor, Extras]:
        """Multiply the mask onto the last map."""
        image = stack["image"]
        if self.mask is None:
            mask = stack["attention"][:, -1:]
        else:
            mask = self.mask(scaled(image[:, -1])).float()
        features = self.convolutions(image.flatten(1, 2))
        if mask.shape[2:] != features.shape[2:]:
            mask = F.interpolate(mask, features.shape[2:], mode="bilinear")
        masked = features * mask.to(features.dtype)
        return self.project(masked.flatten(1)), {"attention": mask}


def _mask(image: tuple[int, int, int]) -> Mask:
    """Ψ with the released code's initial weights: gain 1 before the sigmoid."""
    mask = Mask(image)
    for layer in mask:
        if isinstance(layer, nn.Conv2d):
            orthogonal_(layer, 1.0 if layer.out_channels == 1 else RELU_GAIN)
    return mask
