"""The network of Mnih et al. 2015 in the form of OpenAI Baselines' on-policy agents.

Three convolutions of 32, 64 and 64 channels (rl/convolutions.py), flattened (3,136 at 84×84),
Linear 512, ReLU; orthogonal weights at ReLU's gain. On four grey frames of 84×84 and with the heads
of rl/actor_critic.py: 1,686,693 parameters at 4 actions (Nikulin et al. 2019, Table 2). Wu,
Khetarpal and Precup (2021) have 32 channels in the third convolution (`channels: [32, 64, 32]`):
865,413. The agents' files have the scores to expect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from datasets.checked import Checked, Width
from pretrain.encoder import Obs
from rl.convolutions import Convolutions
from rl.layers import RELU_GAIN, orthogonal_
from rl.net import Extras
from rl.net import Net as BaseNet

KINDS = ("pixels",)  # of features that it takes


@dataclass(frozen=True)
class Config(Checked):
    """Channels of the convolutions, and units of the layer after them."""

    channels: tuple[Width, Width, Width] = (32, 64, 64)
    width: Width = 512


class Net(BaseNet):
    """image (B, S, C, H, W) uint8 to (B, width)."""

    def __init__(self, config: Config, example: Obs, stack: int) -> None:
        super().__init__()
        channels, height, width = example["image"].shape[1:]
        self.convolutions = Convolutions((stack * channels, height, width), config.channels)
        project = nn.Linear(math.prod(self.convolutions.shape), config.width)
        self.project = nn.Sequential(orthogonal_(project, RELU_GAIN), nn.ReLU())
        self.width = config.width

    def forward(self, stack: Obs) -> tuple[Tensor, Extras]:
        """No extras: there is no attention."""
        return self.project(self.convolutions(stack["image"].flatten(1, 2)).flatten(1)), {}
