"""A mask of where to look on the network's last map: self-supervised attention, in use.

Wu, Khetarpal and Precup, "Self-Supervised Attention-Aware Reinforcement Learning" (AAAI 2021): the
agents' convolutions (rl/convolutions.py, 32 channels in the third), whose map is multiplied by the
mask of the newest frame, the same for all channels; then Linear 512, ReLU. The mask is

- `frozen`: the encoder's (`model: attention`), pretrained offline (Figs. 6 and 7);
- `joint`: of a mask generator Ψ in the network, learned from the agent's own frames while it learns
  to act (rl/auxiliary.py; Figs. 3 and 4). As in the released code the reward trains Ψ too: two
  optimizers step on it in turn. With `rewarded: false` it does not, and L_attention alone does;
- `top_down`: of such a Ψ that the reward alone trains (Fig. 5).

Expect 865,413 parameters at 4 actions with a frozen mask, 957,926 with a Ψ. What reconstructs
frames in joint training, another 137,601, is not needed to act, and no part of the network.
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
from rl.auxiliary import PairLoss
from rl.convolutions import Convolutions
from rl.fast.precision import Precision, scaled
from rl.layers import RELU_GAIN, orthogonal_
from rl.masks import masked, masked_by
from rl.net import Auxiliary, Extras
from rl.net import Net as BaseNet

KINDS = ("masked", "pixels")  # of features that it takes


@dataclass(frozen=True)
class Config(Checked):
    """Where the mask is from; channels of the convolutions, and units of the layer after them."""

    mask: Literal["frozen", "joint", "top_down"] = "frozen"
    rewarded: bool = True  # whether the agent's loss trains Ψ, too
    channels: tuple[Width, Width, Width] = (32, 64, 32)
    width: Width = 512

    def rules(self) -> Iterator[str]:
        """Something trains Ψ."""
        if not self.rewarded and self.mask != "joint":
            yield f"rewarded: false, is for mask: joint, not {self.mask}"


class Net(BaseNet):
    """image (B, S, C, H, W) uint8, and attention (B, S, h, w) of a frozen mask, to (B, width).

    Extra: attention (B, 1, h, w), the mask.
    """

    attends = True

    def __init__(self, config: Config, example: Obs, stack: int) -> None:
        super().__init__()
        if (config.mask == "frozen") != ("attention" in example):
            raise ValueError(
                f"mask: {config.mask}, must be frozen on an encoder that gives masks, and joint or "
                "top_down on one that gives none"
            )
        channels, height, width = example["image"].shape[1:]
        self.image = channels, height, width
        self.convolutions = Convolutions((stack * channels, height, width), config.channels)
        self.mask = None if config.mask == "frozen" else _mask(self.image)
        self.masks = () if self.mask is None else (self.mask,)
        self.rewarded, self.has_auxiliary = config.rewarded, config.mask == "joint"
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
            with torch.set_grad_enabled(self.rewarded and torch.is_grad_enabled()):
                mask = self.mask(scaled(image[:, -1])).float()
            features, extras = masked(features, mask), {"attention": mask}
        return self.project(features.flatten(1)), extras

    def auxiliary(self, precision: Precision, seed: int) -> Auxiliary:
        """What Ψ learns from in joint training."""
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
