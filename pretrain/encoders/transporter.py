"""Keypoints learned by transporting features from frame to frame: Transporter, frozen.

Kulkarni et al., "Unsupervised Learning of Object Keypoints for Perception and Control" (NeurIPS
2019): the baseline of self-supervised attention (Wu et al. 2021, Table 1), whose `k` is fixed in
training. A target frame is reconstructed from a source's features. Features around the keypoints of
both frames are erased, and the target's features around its keypoints are copied in. Sizes are
those of the released code's tests; the source side is detached, as in that code.

Differs from the paper: instance norm in place of batch norm, which the released code recommends;
the pairs and the number of steps are those of self-supervised attention on the same frames (the
paper's runs are far longer). Keypoints are coordinates of pixels' centres, where the code stretches
the outermost pixels to the frame's border.

Expect 73,335 parameters in gray84 and a 21x21 grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.checked import Count, Natural, Positive, Width
from pretrain import encoder
from pretrain.encoder import Kind, Obs, Picture, Shape, check_image, passes
from pretrain.figures import heat_map, mark_points, picture
from pretrain.modules.precision import Precision, autocast

HALVINGS = 2  # of the frame, down to the grid of features and keypoints


@dataclass(frozen=True)
class Config(encoder.EncoderConfig):
    """Network and training; `filters` doubles with each halving of the frame."""

    k: Width = 7
    spread: Positive = 0.1  # of a keypoint's Gaussian, where the frame is 2 wide and high
    filters: Width = 16
    max_gap: Count = 60  # steps between the two frames of a pair
    epochs: Count = 32
    batch_size: Count = 32
    learning_rate: Positive = 1e-3
    precision: Precision = "auto"  # "auto": bfloat16 products where the processor has them
    seed: Natural = 0

    learns = True

    @property
    def pair_gap(self) -> int:
        """Training is on pairs of frames."""
        return self.max_gap

    @property
    def own_keypoints(self) -> int:
        """A number that is fixed in training."""
        return self.k


@dataclass(frozen=True)
class Features(encoder.EncoderFeatures):
    """No settings."""

    @property
    def kind(self) -> Kind:
        """Images, each with the Gaussians of its keypoints."""
        return "masked"


def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, instance norm and ReLU; with the padding, only the stride changes the size."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2),
        nn.InstanceNorm2d(outputs, affine=True),  # GroupNorm is slow on a CPU
        nn.ReLU(),
    )


def convolutions(channels: int, filters: int) -> nn.Sequential:
    """Images (B, C, H, W) in [0, 1] -> (B, 4 filters, H / 4, W / 4)."""
    layers = [block(channels, filters, 7), block(filters, filters)]
    for _ in range(HALVINGS):
        layers += [block(filters, 2 * filters, stride=2), block(2 * filters, 2 * filters)]
        filters *= 2
    return nn.Sequential(*layers)


class Keypointer(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> keypoints (B, K, 2): x to the right, y down, -1 to 1."""

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        self.features = convolutions(channels, config.filters)
        self.maps = nn.Conv2d(config.filters * 2**HALVINGS, config.k, 1)

    def forward(self, image: Tensor) -> Tensor:
        """The mean position of each map, by softmaxes of its columns' and of its rows' means."""
        maps = self.maps(self.features(image)).float()
        return torch.stack([_mean_position(maps.mean(2)), _mean_position(maps.mean(3))], -1)


def _mean_position(strength: Tensor) -> Tensor:
    """(B, K, n) -> (B, K)."""
    at = _centres(strength.shape[-1], strength.device)
    return (strength.softmax(-1) * at).sum(-1)


def _centres(count: int, device: torch.device) -> Tensor:
    """The coordinates (count,) of the centres of `count` pixels, in -1 to 1."""
    return (2 * torch.arange(count, device=device) + 1) / count - 1


def gaussians(points: Tensor, size: tuple[int, int], spread: float) -> Tensor:
    """Keypoints (B, K, 2) -> maps (B, K, h, w), 1 at each point and 1/e at a `spread` from it."""
    x, y = (_centres(side, points.device) for side in (size[1], size[0]))
    across = (-((x - points[..., :1]) / spread).square()).exp()
    down = (-((y - points[..., 1:]) / spread).square()).exp()
    return down[..., :, None] * across[..., None, :]


class Decoder(nn.Module):
    """Features (B, D, h, w) -> images (B, C, 4 h, 4 w), not bounded."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = filters * 2**HALVINGS
        for _ in range(HALVINGS):
            half = width // 2
            layers += [block(width, width), block(width, half)]
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            width = half
        self.layers = nn.Sequential(*layers, block(width, width))
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """The image."""
        image: Tensor = self.last(self.layers(features))
        return image


class Encoder(encoder.Encoder):
    """(B, C, H, W) uint8 -> {"image": the same, "attention": (B, H / 4, W / 4) float32 in [0, 1]},
    the maximum of the keypoints' Gaussians.

    Raises ValueError for images whose sides are not divisible by 4.
    """

    labels = True

    def __init__(self, config: Config, features: Features, image_shape: Shape) -> None:
        super().__init__(config, features, image_shape)
        self.grid = _grid(image_shape)
        self.keypointer = Keypointer(config, image_shape[0])
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Obs:
        """Masked obs; the image is copied, so that a caller's buffer may be written again."""
        attention = gaussians(self.keypoints(image), self.grid, self.config.spread).amax(1)
        return {"image": image.clone(), "attention": attention}

    def keypoints(self, image: Tensor) -> Tensor:
        """Its K keypoints, (B, K, 2)."""
        check_image(image, self.image_shape)
        if not torch.compiler.is_exporting() and not len(image):  # instance norm refuses it
            return torch.zeros(0, self.config.k, 2, device=image.device)
        return torch.cat([self.keypointer(part.float() / 255) for part in passes(image)])

    def saliency_map(self, image: Tensor) -> Tensor:
        """The Gaussians at the frame's own size, (B, 1, H, W)."""
        height, width = image.shape[2:]
        maps = gaussians(self.keypoints(image), (height, width), self.config.spread)
        return maps.amax(1, keepdim=True)

    def panels(self, image: Tensor) -> dict[str, Picture]:
        """One frame (1, C, H, W) and its keypoints (Wu et al., Fig. 8)."""
        frame, points = picture(image[0]), self.keypoints(image)[0].double().cpu().numpy()
        maps = heat_map(self.saliency_map(image)[0, 0].cpu().numpy())
        return {"frame": frame, "Gaussians": maps, "keypoints": mark_points(frame, points)}


class Pretraining(encoder.EncoderTraining):
    """Reconstructs targets by transport from sources."""

    def __init__(self, config: Config, image_shape: Shape) -> None:
        super().__init__()
        self.config, self.image_shape, self.grid = config, image_shape, _grid(image_shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.features = convolutions(image_shape[0], config.filters)
            self.keypointer = Keypointer(config, image_shape[0])
            self.decoder = Decoder(image_shape[0], config.filters)

    def transport(self, source: Tensor, target: Tensor) -> Tensor:
        """The reconstruction of the target (B, C, H, W); keypoints are transported in turn."""
        with torch.no_grad():
            background, sources = self.features(source), self._maps(source)
        features, targets = self.features(target), self._maps(target)
        for k in range(self.config.k):
            source_map, target_map = sources[:, k, None], targets[:, k, None]
            background = (1 - source_map) * (1 - target_map) * background + target_map * features
        image: Tensor = self.decoder(background)
        return image

    def _maps(self, image: Tensor) -> Tensor:
        return gaussians(self.keypointer(image), self.grid, self.config.spread)

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """Mean squared error; batch: image, the targets, and source, both (B, H, W, C) uint8."""
        source, target = _to_unit(batch["source"]), _to_unit(batch["image"])
        with autocast(self.config.precision, target.device):
            image = self.transport(source, target)
        return F.mse_loss(image.float(), target)

    def optimizer(
        self, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Adam at a constant rate."""
        optimizer = torch.optim.Adam(self.parameters(), self.config.learning_rate)
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0, 0)

    @torch.no_grad()
    def panels(self, batch: Mapping[str, Any]) -> dict[str, Picture]:
        """A pair: source and target with their keypoints, and the reconstruction."""
        images = {name: _to_unit(batch[name]) for name in ("source", "image")}
        reconstruction = self.transport(images["source"], images["image"])
        panels = {"reconstruction": _picture(reconstruction[0])}
        for name, image in images.items():
            points = self.keypointer(image)[0].double().cpu().numpy()
            panels["target" if name == "image" else name] = mark_points(_picture(image[0]), points)
        return panels

    def encoder(self, features: Any = None, saliency: Any = None) -> Encoder:
        """The frozen encoder with the current weights."""
        frozen = Encoder(self.config, features or Features(), self.image_shape)
        frozen.keypointer.load_state_dict(self.keypointer.state_dict())
        return frozen


def _grid(shape: Shape) -> tuple[int, int]:
    height, width = shape[1:]
    if height % 4 or width % 4:
        raise ValueError(f"image_shape: {shape}, must be divisible by 4 in height and width")
    return height // 4, width // 4


def _to_unit(images: Tensor) -> Tensor:
    """(B, H, W, C) uint8 -> (B, C, H, W) float32 in [0, 1]."""
    return (images.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)


def _picture(image: Tensor) -> Picture:
    """(C, H, W), 0 to 1 or a little beyond -> (H, W, 3)."""
    return picture((image.clamp(0, 1) * 255).round().byte())
