"""The data-efficient Rainbow's convolutions (van Hasselt et al. 2019), on stacked RGB pixels.

The baseline in SPIRL's Table 2: conv 5×5/5 to 32, conv 5×5/5 to 64, flattened (576 at 96×96).
Differs from van Hasselt et al. in the input only: 4 RGB frames of 96×96 (12 channels) instead of
4 grey ones of 84×84, as in SPIRL's implementation. With Rainbow's head: 1,149,810 parameters at
18 actions. Expect after 100K steps (SPIRL, Table 11, 10 seeds): Frostbite 341, MsPacman 1015,
Seaquest 397, BattleZone 10602.

On an encoder with masks (`model: attention`) the newest frame's mask multiplies the last map:
self-supervised attention in Rainbow (Wu, Khetarpal and Precup 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from datasets.checked import Checked, Width
from pretrain.encoder import Obs
from rl.fast.convolution import PatchConv2d
from rl.masks import masked_by
from rl.net import Extras
from rl.net import Net as BaseNet

KINDS = ("pixels", "masked")  # of features that it takes


@dataclass(frozen=True)
class Config(Checked):
    """Channels of the two convolutions."""

    channels: tuple[Width, Width] = (32, 64)


class Net(BaseNet):
    """image (B, S, C, H, W) uint8 -> (B, width).

    An encoder with masks adds attention (B, S, h, w), and the extra attention (B, 1, h, w).
    """

    def __init__(self, config: Config, example: Obs, stack: int) -> None:
        super().__init__()
        _, channels, height, width = example["image"].shape
        if min(height, width) < 25:
            raise ValueError(f"image: {height}x{width} is below the two convolutions' 25x25")
        first, second = config.channels
        self.convolutions = nn.Sequential(
            PatchConv2d(stack * channels, first, 5),  # nn.Conv2d(..., stride=5) of image / 255
            nn.ReLU(),
            nn.Conv2d(first, second, 5, stride=5),
            nn.ReLU(),
        )
        self.attends = "attention" in example
        self.width = second * (height // 25) * (width // 25)

    def forward(self, stack: Obs) -> tuple[Tensor, Extras]:
        """The last map, masked if there is a mask."""
        features, extras = masked_by(self.convolutions(stack["image"].flatten(1, 2)), stack)
        return features.flatten(1), extras
