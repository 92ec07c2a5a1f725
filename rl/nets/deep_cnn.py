"""The eleven convolutions with which ViSaRL's agents learn from pixels (App. F, released code).

64 pixels a side, scaled to 0…1; 3x3 convolutions of 32 filters without padding, the first of
stride 2 and ten of stride 1, ReLU between them and none after the last; then Linear 512, LayerNorm,
tanh, on 32x11x11 = 3,872 features (the paper's 32x12x12 would need 65 pixels). Convolutions begin
delta-orthogonal (Xiao et al. 2018), at ReLU's gain; there are no random crops. Any
number of channels: RGB, saliency, RGBS. 2,077,376 parameters on RGB. On an encoder with masks
(`model: attention`) the newest frame's mask multiplies the last map.

Expect the scores of Table I's CNN rows after 1M steps of SAC (mean success over reach, drawer-open,
faucet-open, door-open): agents/sac.py has the settings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from datasets.checked import Checked, Depth, Width
from pretrain.encoder import Obs
from rl.masks import masked_by
from rl.net import Extras
from rl.net import Net as BaseNet

KINDS = ("pixels", "masked")  # of features that it takes


@dataclass(frozen=True)
class Config(Checked):
    """Layers, their filters, and the width of the features."""

    layers: Depth = 11
    filters: Width = 32
    width: Width = 512


class Net(BaseNet):
    """image (B, S, C, H, W) uint8 -> (B, width).

    An encoder with masks adds attention (B, S, h, w), and the extra attention (B, 1, h, w).
    """

    def __init__(self, config: Config, example: Obs, stack: int) -> None:
        super().__init__()
        _, channels, height, width = example["image"].shape
        rows, columns = ((side - 3) // 2 + 1 - 2 * (config.layers - 1) for side in (height, width))
        if min(rows, columns) < 1:
            raise ValueError(
                f"image: {height}x{width} is too small for {config.layers} convolutions; "
                "lower net.layers"
            )
        layers: list[nn.Module] = [nn.Conv2d(stack * channels, config.filters, 3, stride=2)]
        for _ in range(config.layers - 1):
            layers += [nn.ReLU(), nn.Conv2d(config.filters, config.filters, 3)]
        self.convolutions = nn.Sequential(*layers)
        self.project = nn.Sequential(
            nn.Linear(config.filters * rows * columns, config.width),
            nn.LayerNorm(config.width),
            nn.Tanh(),
        )
        self.attends = "attention" in example
        self.width = config.width
        self.apply(_initialise)

    def forward(self, stack: Obs) -> tuple[Tensor, Extras]:
        """The last map, masked if there is a mask."""
        image = stack["image"].flatten(1, 2).float() / 255
        features, extras = masked_by(self.convolutions(image), stack)
        return self.project(features.flatten(1)), extras


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """Orthogonal weights; in a convolution only the centre tap, and zero elsewhere."""
    if isinstance(module, nn.Conv2d):
        module.weight.zero_()
        nn.init.orthogonal_(module.weight[:, :, 1, 1], nn.init.calculate_gain("relu"))
    elif isinstance(module, nn.Linear):
        nn.init.orthogonal_(module.weight)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
