"""A small network distilled from another source's maps, which labels and acts in its place.

Ours: ViSaRL (Liang et al. 2024) runs PiCANet at every step, which takes most of a CPU's time. A
small U-net (Ronneberger et al. 2015), distilled from PiCANet's soft maps of thousands of frames
(after Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015), comes near
it. Its first layer halves the frame, its last doubles the map, and all others run at a half to an
eighth of the size.

It is trained with batch norm, which is folded into the convolutions when it is frozen. On a CPU,
where frames go one by one, the number of layers costs more than their width: full convolutions are
as fast as separable ones, which take two layers each. Expect 141,364 parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from datasets.checked import Count, Fraction, Natural, NonNegative, Width
from pretrain import encoder
from pretrain.encoder import check_image
from pretrain.images import channels_first
from pretrain.modules.predictor import frames_to_unit, predict, to_unit
from pretrain.schedule import adamw, half_cosine


@dataclass(frozen=True)
class Config(encoder.SaliencyConfig):
    """Network and training; `size` is the side of the network's input, `width` the number of
    channels at half of it, which doubles with each halving.
    """

    size: Width = 64
    width: Width = 16
    epochs: Count = 30
    batch_size: Count = 64
    learning_rate: NonNegative = 3e-3
    warmup: Fraction = 0.05  # of the steps
    weight_decay: NonNegative = 0.01
    seed: Natural = 0

    learns = True

    def rules(self) -> Iterator[str]:
        """The size is halved three times."""
        if self.size % 8:
            yield f"size: {self.size}, must be a multiple of 8"


def convolution(inputs: int, outputs: int, stride: int, norm: bool) -> nn.Sequential:
    """A 3x3 convolution, then batch norm (without it, a bias), and ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=not norm)
    after = nn.BatchNorm2d(outputs) if norm else nn.Identity()
    return nn.Sequential(conv, after, nn.ReLU(inplace=True))


class Network(nn.Module):
    """Images (B, 3, size, size) in [0, 1] -> logits (B, 1, size, size). Not initialised."""

    def __init__(self, width: int, *, norm: bool) -> None:
        super().__init__()
        half, quarter, eighth = width, 2 * width, 4 * width
        self.look = convolution(3, half, 2, norm)
        self.shrink = nn.Sequential(
            convolution(half, quarter, 2, norm), convolution(quarter, quarter, 1, norm)
        )
        self.think = nn.Sequential(
            convolution(quarter, eighth, 2, norm),
            convolution(eighth, eighth, 1, norm),
            convolution(eighth, eighth, 1, norm),
        )
        self.grow = convolution(eighth + quarter, quarter, 1, norm)
        self.draw = convolution(quarter + half, half, 1, norm)
        self.predict = nn.Conv2d(half, 4, 1)  # four pixels of the map for each at half size

    def initialise(self, seed: int) -> None:
        """Sample the weights (He et al. 2015)."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(cast(Tensor, self.predict.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Three halvings, and three doublings with skip connections."""
        half = self.look(x)
        quarter = self.shrink(half)
        x = torch.cat([_double(self.think(quarter)), quarter], 1)
        x = torch.cat([_double(self.grow(x)), half], 1)
        return F.pixel_shuffle(self.predict(self.draw(x)), 2)


@torch.no_grad()
def fold(trained: nn.Module, frozen: nn.Module) -> None:
    """Fill `frozen`, the network without norms, so that it equals `trained` in evaluation mode."""
    for layer, other in zip(trained.children(), frozen.children(), strict=True):
        if isinstance(layer, nn.Conv2d):
            cast(nn.Conv2d, other).load_state_dict(layer.state_dict(), strict=False)
            before = layer, cast(nn.Conv2d, other)
        elif isinstance(layer, nn.BatchNorm2d):
            fusion = fuse_conv_bn_eval(before[0].eval(), layer.eval())
            before[1].load_state_dict(fusion.state_dict())
        else:
            fold(layer, other)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Saliency(encoder.Saliency):
    """(B, 3, H, W) uint8 -> (B, 1, H, W) float32 in [0, 1]; frozen."""

    def __init__(self, config: Config, image_shape: encoder.Shape) -> None:
        super().__init__(config, image_shape)
        self.network = Network(config.width, norm=False)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """The network's map."""
        check_image(image, self.image_shape)
        return predict(self.network, image, self.config.size)


class Training(nn.Module):
    """Training on another source's maps."""

    def __init__(self, config: Config, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.config, self.image_shape = config, image_shape
        self.network = Network(config.width, norm=True)
        self.network.initialise(config.seed)

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """Cross-entropy with soft maps; batch: image (B, H, W, 3), saliency (B, H, W), uint8."""
        image = frames_to_unit(channels_first(batch["image"]), self.config.size)
        target = to_unit(batch["saliency"][:, None], self.config.size)
        return F.binary_cross_entropy_with_logits(self.network(image).float(), target)

    def optimizer(
        self, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """AdamW with a linear warm-up and half a cosine, set at every step."""
        c = self.config
        optimizer = adamw(
            self, rate=c.learning_rate, betas=(0.9, 0.999), weight_decay=c.weight_decay
        )
        factor = partial(half_cosine, steps=steps, warmup=c.warmup * steps)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def saliency(self) -> Saliency:
        """The frozen predictor with the current weights."""
        source = Saliency(self.config, self.image_shape)
        fold(copy.deepcopy(self.network), source.network)
        return source
