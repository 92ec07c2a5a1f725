"""PiCANet: each pixel's saliency from the context that it attends to, learned from a few clicks.

Liu, Han and Yang, "PiCANet: Learning Pixel-wise Contextual Attention for Saliency Detection" (CVPR
2018), as ViSaRL uses it (Liang et al. 2024, sec. II-A, Tables III to VI): a U-net on VGG16 whose
decoder cells attend to 7x7 neighbours two pixels apart. ViSaRL leaves out the two global cells, and
so does `attention: LLL`; `GGLLL` is the original.

Differs from ViSaRL's released code:

- the softmax is over the 49 taps of a pixel (there, over 49 positions);
- the attention branch has the ReLU and batch norm of PiCANet's own network;
- pixels are normalised with ImageNet's mean and deviation;
- training frames have their colours jittered, and half of them are mirrored;
- maps are enlarged bilinearly without aligned corners; true maps have the frames' size and are
  resized by nearest neighbours (there, shrunk from 400x400);
- without the global cells, the layers of VGG16 that only they use are left out;
- the rate falls tenfold after 35 and 70 % of the steps, PiCANet's own schedule (there, when the
  loss of single batches stalls), so that it depends on the step alone;
- in the original's global cells fc7 is 1x1 as PiCANet's (there 3x3), without dropout, and the 10x10
  grid of 28x28 pixels is stretched to the actual size.

`batch_size: 8` and `loss: bce` are the released code's, 16 and `weighted_mse` the paper's.

Expect 14,319,741 parameters, with global cells 38,830,807. The paper reports MAE 0.0032 and F 0.797
after 1000 epochs on 24 frames of 224x224 pixels. 300 epochs of 24 frames of 64x64 pixels took 13
minutes on one core with AVX-512, 66 without; F from 30 simulated annotations was 0.67, MAE 0.0084.
Global cells take 1.6 to 1.8 times as long a frame on a CPU (the paper: 10 times).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.checked import Count, Natural, NonNegative, Width
from datasets.errors import FoveaError
from pretrain import encoder
from pretrain.encoder import check_image
from pretrain.images import channels_first
from pretrain.modules.pixel_attention import Global, Local
from pretrain.modules.predictor import frames_to_unit, predict, to_unit
from pretrain.schedule import noise
from pretrain.transforms.augmentation import colour_jitter, mirror

# The weights of the cells' losses, deep to shallow.
SUPERVISION = {"LLL": (0.5, 0.8, 0.8, 1.0), "GGLLL": (0.5, 0.5, 0.5, 0.8, 0.8, 1.0)}
# ViSaRL's ColorJitter, which its code never applies.
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}
DECAY, PERIOD = 0.1, 0.35  # of the rate; of the steps, 7000 of PiCANet's 20000


@dataclass(frozen=True)
class Config(encoder.SaliencyConfig):
    """Network and training (Table III, but the batch size 8 and the loss of the released README);
    `size` is the side of the network's input.
    """

    size: Width = 224
    attention: Literal["LLL", "GGLLL"] = "LLL"
    loss: Literal["bce", "weighted_mse"] = "bce"
    init: Literal["scratch", "imagenet"] = "scratch"
    epochs: Count = 1000
    batch_size: Count = 8
    learning_rate: NonNegative = 3e-4
    weight_decay: NonNegative = 0.005
    seed: Natural = 0

    learns = True

    def rules(self) -> Iterator[str]:
        """The size is halved three times."""
        if self.size % 8:
            yield f"size: {self.size}, must be a multiple of 8"


def weighted_mse(logits: Tensor, target: Tensor) -> Tensor:
    """Squared error, weighted up to twenty times more where the target is high."""
    return ((logits.sigmoid() - target).square() / (1.05 - target)).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": F.binary_cross_entropy_with_logits,
    "weighted_mse": weighted_mse,
}


class Cell(nn.Module):
    """A step of the decoder: it merges VGG's features with the last step's, adds context by
    attention, and predicts a map. The last step has no attention.
    """

    def __init__(self, channels: int, width: int, attend: nn.Module | None) -> None:
        super().__init__()
        self.skip = nn.BatchNorm2d(channels)
        self.merge = nn.Conv2d(2 * channels, channels, 1)
        self.attend = attend
        if attend is not None:
            self.fuse = nn.Conv2d(2 * channels, width, 1)
            self.norm = nn.BatchNorm2d(width)
        self.predict = nn.Conv2d(width, 1, 1)

    def forward(self, skip: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """(B, channels, H, W) twice -> decoded (B, width, H, W) and logits (B, 1, H, W)."""
        if decoded.shape[2:] != skip.shape[2:]:
            decoded = F.interpolate(decoded, size=skip.shape[2:], mode="bilinear")
        x = F.relu(self.merge(torch.cat([F.relu(self.skip(skip)), decoded], 1)))
        if self.attend is not None:
            x = F.relu(self.norm(self.fuse(torch.cat([x, self.attend(x)], 1))))
        return x, self.predict(x)


def vgg16(pretrained: bool) -> nn.Sequential:
    """timm's layers without the classifier; unless pretrained, their weights are uninitialised.

    Raises FoveaError where the weights can't be downloaded.
    """
    if not pretrained:
        with torch.device("meta"):  # its classifier alone is 490 MB
            layers = cast(Any, timm.create_model("vgg16")).features
        return cast(nn.Sequential, layers.to_empty(device="cpu"))
    try:
        return cast(nn.Sequential, cast(Any, timm.create_model("vgg16", pretrained=True)).features)
    except Exception as error:  # the hub's client and the network raise many kinds
        raise FoveaError(
            f"init: imagenet, but timm could not get the weights of vgg16 "
            f"({type(error).__name__}: {error}); run this stage where they can be downloaded, copy "
            "that machine's Hugging Face cache (HF_HOME) here, or use init: scratch"
        ) from error


class Network(nn.Module):
    """Images (B, 3, size, size) in [0, 1] -> logits of each cell, deep to shallow; the last are
    (B, 1, size, size). Not initialised.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, attention: str, size: int, *, pretrained: bool = False) -> None:
        super().__init__()
        for name, values in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        layers = list(vgg16(pretrained))
        pools = [n for n, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        stages = [nn.Sequential(*layers[a:b]) for a, b in pairwise([0, *pools])]
        side = size // 8
        cells = [
            Cell(512, 256, Local(512)),
            Cell(256, 128, Local(256)),
            Cell(128, 64, Local(128)),
            Cell(64, 64, None),
        ]
        if attention == "GGLLL":
            stages = [*stages[:4], _without_stride(stages[4]), _fully_connected()]
            original = [Cell(1024, 512, Global(1024, side)), Cell(512, 512, Global(512, side))]
            cells = original + cells
        else:
            stages = stages[:4]
        self.stages, self.cells = nn.ModuleList(stages), nn.ModuleList(cells)

    def initialise(self, seed: int, *, keep_vgg: bool) -> None:
        """Sample the weights (He et al. 2015), VGG's too unless they are pretrained."""
        generator = torch.Generator().manual_seed(seed)
        vgg = set(self.stages[:5].modules()) if keep_vgg else set()
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module not in vgg:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(cast(Tensor, module.bias))
            if isinstance(module, nn.LSTM):
                bound = module.hidden_size**-0.5
                for parameter in module.parameters():
                    nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, x: Tensor) -> list[Tensor]:
        """One map of logits a cell."""
        skips: list[Tensor] = []
        x = (x - self.mean) / self.std
        for stage in self.stages:
            x = stage(x)
            skips.insert(0, x)
        logits = []
        for cell, skip in zip(self.cells, skips, strict=True):
            x, predicted = cell(skip, x)
            logits.append(predicted)
        return logits


def _without_stride(stage: nn.Sequential) -> nn.Sequential:
    """VGG's fifth stage at the fourth's scale: a pool without stride, and dilated filters."""
    for layer in stage:
        if isinstance(layer, nn.Conv2d):
            layer.dilation, layer.padding = (2, 2), (2, 2)
    return nn.Sequential(nn.MaxPool2d(3, 1, 1), *list(stage)[1:])


def _fully_connected() -> nn.Sequential:
    """VGG's fully connected layers as convolutions."""
    return nn.Sequential(
        nn.MaxPool2d(3, 1, 1),
        nn.Conv2d(512, 1024, 3, padding=12, dilation=12),
        nn.ReLU(inplace=True),
        nn.Conv2d(1024, 1024, 1),
        nn.ReLU(inplace=True),
    )


class Saliency(encoder.Saliency):
    """(B, 3, H, W) uint8 -> (B, 1, H, W) float32 in [0, 1]; frozen."""

    def __init__(self, config: Config, image_shape: encoder.Shape) -> None:
        super().__init__(config, image_shape)
        self.network = Network(config.attention, config.size)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """The last cell's map."""
        check_image(image, self.image_shape)
        return predict(lambda x: self.network(x)[-1], image, self.config.size)


class Training(nn.Module):
    """Training on the maps of a few frames, every cell at its own scale."""

    def __init__(self, config: Config, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.config, self.image_shape = config, image_shape
        pretrained = config.init == "imagenet"
        self.network = Network(config.attention, config.size, pretrained=pretrained)
        self.network.initialise(config.seed, keep_vgg=pretrained)

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """The cells' losses, weighted; batch: image (B, H, W, 3) and saliency (B, H, W), uint8."""
        rng, share = noise(self.config.seed, batch["step"]), batch["share"]
        image = frames_to_unit(channels_first(batch["image"]), self.config.size)
        target = to_unit(batch["saliency"][:, None], self.config.size)
        image = colour_jitter(image, rng, share, **JITTER)
        both = mirror(torch.cat([image, target], 1), rng, share)
        image, target = both[:, :3], both[:, 3:]
        losses = []
        for logits in self.network(image):
            truth = F.max_pool2d(target, self.config.size // logits.shape[2])
            losses.append(LOSSES[self.config.loss](logits.float(), truth))
        weights = SUPERVISION[self.config.attention]
        return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum()

    def optimizer(
        self, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """AdamW on all parameters; the rate falls tenfold twice."""
        optimizer = torch.optim.AdamW(
            self.parameters(),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            fused=True,
        )
        return optimizer, torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: DECAY ** int(step / (PERIOD * steps))
        )

    def saliency(self) -> Saliency:
        """The frozen predictor with the current weights."""
        source = Saliency(self.config, self.image_shape)
        source.network.load_state_dict(self.network.state_dict())
        return source
