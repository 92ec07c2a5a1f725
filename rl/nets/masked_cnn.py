"""Convolutions with a mask on the last feature map: self-supervised attention in an agent.

Wu, Khetarpal and Precup, "Self-Supervised Attention-Aware Reinforcement Learning" (AAAI 2021). The
convolutions are rl/convolutions.py with 32 channels in the third; their map is multiplied by the
mask of the newest frame, the same for all channels; then Linear 512, ReLU. `mask` is one of

- `frozen`: the encoder's mask (`model: attention`), pretrained offline (Figs. 6 and 7);
- `joint`: a mask generator Ψ in the network, trained online by L_attention on the agent's own
  frames (rl/auxiliary.py; Figs. 3 and 4). As in the released code L_RL trains it too, so that two
  optimizers have Ψ's weights; with `rl_gradient: false` only L_attention trains it;
- `top_down`: such a Ψ, trained by L_RL alone (Fig. 5).

Expect 865,413 parameters at 4 actions with a frozen mask, 957,926 with a Ψ. Joint training has
another 137,601, Φ and the decoder, which are not part of the network: acting does not need them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from datasets.checked import Checked, Width
from pretrain.encoder import Obs
from pretrain.modules.attention_autoencoder import Mask
from pretrain.modules.precision import Precision
from rl.auxiliary import PairLoss
from rl.convolutions import Convolutions
from rl.fast.precision import scaled
from rl.layers import RELU_GAIN, orthogonal_
from rl.masks import masked, masked_by
from rl.net import Auxiliary, Extras
from rl.net import Net as BaseNet

KINDS = ("masked", "pixels")  # of features that it takes


@dataclass(frozen=True)
class Config(Checked):
    """The mask's source; channels of the convolutions, and units of the layer after them."""

    mask: Literal["frozen", "joint", "top_down"] = "frozen"
    rl_gradient: bool = True  # whether L_RL trains Ψ
    channels: tuple[Width, Width, Width] = (32, 64, 32)
    width: Width = 512

    def rules(self) -> Iterator[str]:
        """A loss trains Ψ."""
        if not self.rl_gradient and self.mask != "joint":
            yield f"rl_gradient: false, must be true with mask: {self.mask}, unlike joint"


class Net(BaseNet):
    """image (B, S, C, H, W) uint8, and attention (B, S, h, w) of a frozen mask -> (B, width).

    Extra: attention (B, 1, h, w), the mask.
    """

    attends = True

    def __init__(self, config: Config, example: Obs, stack: int) -> None:
        super().__init__()
        if (config.mask == "frozen") != ("attention" in example):
            raise ValueError(
                f"mask: {config.mask}, must be frozen on an encoder with masks, and joint or "
                "top_down on one without"
            )
        channels, height, width = example["image"].shape[1:]
        self.image = channels, height, width
        self.convolutions = Convolutions((stack * channels, height, width), config.channels)
        self.mask = None if config.mask == "frozen" else _mask(self.image)
        self.masks = () if self.mask is None else (self.mask,)
        self.rl_gradient, self.has_auxiliary = config.rl_gradient, config.mask == "joint"
        project = nn.Linear(math.prod(self.convolutions.shape), config.width)
        self.project = nn.Sequential(orthogonal_(project, RELU_GAIN), nn.ReLU())
        self.width = config.width

    def forward(self, stack: Obs) -> tuple[Tensor, Extras]:
        """Multiply the mask onto the last map."""
        image = stack["image"]
        features = self.convolutions(image.flatten(1, 2))
        if self.mask is None:
            features, extras = masked_by(features, stack)
        else:
            with torch.set_grad_enabled(self.rl_gradient and torch.is_grad_enabled()):
                mask = self.mask(scaled(image[:, -1])).float()
            features, extras = masked(features, mask), {"attention": mask}
        return self.project(features.flatten(1)), extras

    def auxiliary(self, precision: Precision, seed: int) -> Auxiliary:
        """L_attention of a joint mask."""
        if self.mask is None or not self.has_auxiliary:
            return super().auxiliary(precision, seed)
        return PairLoss(self.mask, self.image, precision=precision, seed=seed)


def _mask(image: tuple[int, int, int]) -> Mask:
    """Ψ with the released code's initial weights: gain 1 before the sigmoid."""
    mask = Mask(image)
    for layer in mask:
        if isinstance(layer, nn.Conv2d):
            orthogonal_(layer, 1.0 if layer.out_channels == 1 else RELU_GAIN)
    return mask
