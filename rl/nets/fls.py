"""Free-Lunch Saliency: attention inside a policy's convolutions, which is its saliency map.

Nikulin, Ianina, Aliev and Nikolenko, "Free-Lunch Saliency via Attention in Atari Agents" (ICCV
workshops 2019). A module computes one number for each position of a feature map, by which all
channels there are multiplied (Fig. 2d); the agent trains it by the reward alone. `variant` is an
architecture of Tables 2 and 3, with this number of parameters on four gray84 frames, at 4 actions:

    sparse                  Nature CNN's convolutions, FLS after the last           1,836,710
    sparse_pooled           positions summed before the linear layer                  263,846
    sparse_first            FLS after the first convolution                         1,762,982
    sparse_each             FLS after each convolution                              2,063,016
    sparse_normalised       attention divided by its sum ("+ norm")                 1,836,710
    sparse_1x1              1x1 convolutions in FLS                                 1,703,590
    sparse_softplus2        SoftPlus₂, which is 1 at 0                              1,836,710
    sparse_linear           no ReLU after the last convolution                      1,836,710
    sparse_linear_pooled    both                                                      263,846
    dense                   convolutions of stride 1, positions summed                280,358
    dense_linear            no ReLU after the last convolution                        280,358
    daqn                    DARQN's softmax attention, positions summed               130,726
    rs_ppo                  the region-sensitive module, image padded by 1          1,720,999
    rs_ppo_unpadded         without padding                                         1,720,999

The paper's baseline is net `nature_cnn` (1,686,693). Its agent is PPO at its defaults.

Differs from the released code:
- RS-PPO's saliency map is aligned with its padded image. There it is one pixel too low and too far
  to the right.
- A saliency map's maximum is 1, frame by frame. There it is divided by the maximum of a whole
  recording. No metric of the paper depends on that.

As there, the maps of `sparse_each` are summed on the positions after the first convolution.
Uniform attention has a saliency map, too: it is brightest in the middle, where most receptive
fields overlap.

Expect on Breakout after 50M steps (Table 3): sparse 624, nature_cnn 618, rs_ppo 605, daqn 601,
dense 532, sparse_pooled 520; on Space Invaders sparse 9,359 and nature_cnn 3,867.

On one core a step of PPO takes 1.1 times nature_cnn's with daqn, 1.4 with sparse, 1.5 with rs_ppo,
3 with sparse_first and 4 with sparse_each; by arithmetic some 50 with dense.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.checked import Checked
from pretrain.encoder import Obs
from rl.attention import (
    Field,
    FreeLunch,
    RegionSensitive,
    Softmax,
    Spread,
    positions,
    receptive_field,
)
from rl.fast.precision import scaled
from rl.layers import RELU_GAIN, orthogonal_
from rl.masks import masked
from rl.net import Extras
from rl.net import Net as BaseNet

KINDS = ("pixels",)  # of features that it takes
CHANNELS, WIDTH = (32, 64, 64), 512

SPARSE = Field(8, 4, 0), Field(4, 2, 0), Field(3, 1, 0)
PADDED = Field(8, 4, 1), Field(4, 2, 0), Field(3, 1, 0)
DENSE = Field(7, 1, 3), Field(5, 1, 2), Field(3, 1, 1)


@dataclass(frozen=True)
class Design:
    """An architecture."""

    attention: Callable[[int], nn.Module] = FreeLunch  # of a number of channels
    layers: tuple[Field, Field, Field] = SPARSE
    after: tuple[int, ...] = (3,)  # the attended convolutions
    last_relu: bool = True
    pooled: bool = False  # summed over all positions


DESIGNS = {
    "sparse": Design(),
    "sparse_pooled": Design(pooled=True),
    "sparse_first": Design(after=(1,)),
    "sparse_each": Design(after=(1, 2, 3)),
    "sparse_normalised": Design(partial(FreeLunch, normalised=True)),
    "sparse_1x1": Design(partial(FreeLunch, size=1)),
    "sparse_softplus2": Design(partial(FreeLunch, beta=math.log(2))),
    "sparse_linear": Design(last_relu=False),
    "sparse_linear_pooled": Design(last_relu=False, pooled=True),
    "dense": Design(layers=DENSE, pooled=True),
    "dense_linear": Design(layers=DENSE, last_relu=False, pooled=True),
    "daqn": Design(Softmax, pooled=True),
    "rs_ppo": Design(RegionSensitive, PADDED),
    "rs_ppo_unpadded": Design(RegionSensitive),
}


@dataclass(frozen=True)
class Config(Checked):
    """The architecture."""

    variant: Literal[
        "sparse", "sparse_pooled", "sparse_first", "sparse_each", "sparse_normalised",
        "sparse_1x1", "sparse_softplus2", "sparse_linear", "sparse_linear_pooled", "dense",
        "dense_linear", "daqn", "rs_ppo", "rs_ppo_unpadded",
    ] = "sparse"  # fmt: skip


class Net(BaseNet):
    """image (B, S, C, H, W) uint8 -> (B, 512); extra: attention (B, 1, H, W), the saliency map."""

    attends = True
    width = WIDTH

    def __init__(self, config: Config, example: Obs, stack: int) -> None:
        """Raises ValueError if the image is smaller than a receptive field."""
        super().__init__()
        self.design = design = DESIGNS[config.variant]
        channels, *self.image = example["image"].shape[1:]
        self._check(image := self.image)
        inputs = (stack * channels, *CHANNELS)
        self.convolutions = nn.ModuleList(
            orthogonal_(nn.Conv2d(inputs[i], inputs[i + 1], *layer), RELU_GAIN)
            for i, layer in enumerate(design.layers)
        )
        self.attention = nn.ModuleDict({str(n): design.attention(inputs[n]) for n in design.after})
        self.masks = tuple(self.attention.values())
        self.spread = Spread((image[0], image[1]), design.layers, design.after)
        height, width = (positions(side, design.layers) for side in image)
        features = CHANNELS[-1] if design.pooled else CHANNELS[-1] * height * width
        self.project = nn.Sequential(orthogonal_(nn.Linear(features, WIDTH), RELU_GAIN), nn.ReLU())

    def forward(self, stack: Obs) -> tuple[Tensor, Extras]:
        """Multiply the attention onto the maps that it was computed from."""
        x, maps = scaled(stack["image"].flatten(1, 2)), []
        for number, convolution in enumerate(self.convolutions, start=1):
            x = convolution(x)
            if number < len(self.convolutions) or self.design.last_relu:
                x = F.relu(x)
            if number in self.design.after:
                attention = self.attention[str(number)](x)
                x = masked(x, attention)
                maps.append(attention)
        vector = x.sum((2, 3)) if self.design.pooled else x.flatten(1)
        return self.project(vector), {"attention": self.spread(maps)}

    def uniform(self, extras: Extras) -> Extras:
        """The saliency map of uniform attention, brightest in the middle."""
        layers, device = self.design.layers, extras["attention"].device
        sizes = [[positions(side, layers[:n]) for side in self.image] for n in self.design.after]
        uniform = self.spread([torch.ones(1, 1, *size, device=device) for size in sizes])
        return {"attention": uniform.expand_as(extras["attention"])}

    def _check(self, image: list[int]) -> None:
        field = receptive_field(self.design.layers)
        least = field.size - 2 * field.padding
        if min(image) < least:
            height, width = image
            raise ValueError(f"image: {height}x{width}, must be at least {least}x{least}")
