"""A mask of where to look, learned without labels: self-supervised attention, frozen.

Wu, Khetarpal and Precup, "Self-Supervised Attention-Aware Reinforcement Learning" (AAAI 2021). An
autoencoder reconstructs a frame from another one of the same episode and from as little of the
frame itself as it can (modules/attention_autoencoder.py). Only its mask generator Ψ is kept. It is
a saliency source, and gives `masked` features: a net multiplies its last feature map by the mask.

Differs from the paper: trained offline on recorded frames, for which neither paper nor code gives
a schedule. `max_gap`, `delta`, `sparsity`, Adam's rate and the clipped gradient are those of the
code's training online; 50,000 steps of 32 pairs at 50,000 frames are ours (the code: some 125,000
steps of 16). The two frames of a pair are always of one episode, and black frames are not skipped.
Trained on several games at once it is the paper's universal mask (Fig. 6).

Expect 92,513 parameters in gray84 and a 7x7 mask. In a saliency map a cell covers a seventh of the
frame's sides. The cells' receptive fields are 36x36 pixels, with centres 8 pixels apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.checked import Count, Natural, NonNegative, Positive
from pretrain import encoder
from pretrain.encoder import Kind, Obs, Picture, Shape, check_image, passes
from pretrain.figures import heat_map, mark_points, overlay, picture
from pretrain.images import channels_first
from pretrain.metrics.keypoints import keypoints
from pretrain.modules.attention_autoencoder import AttentionAutoencoder, Mask, attention_loss
from pretrain.modules.batched import TOGETHER, batched, is_batched
from pretrain.modules.precision import Precision, autocast

KEYPOINTS = (7, 10)  # numbers of keypoints in the panels: those of Figs. 8 and 9


@dataclass(frozen=True)
class Config(encoder.EncoderConfig):
    """The loss (eq. 2 and 3) and the training; `sparsity` is λ_m of means over cells and pixels."""

    max_gap: Count = 60  # steps between the two frames of a pair
    delta: NonNegative = 0.01  # of the squared error of a pixel in [0, 1]
    sparsity: NonNegative = 1e-3
    reduction: Literal["mean", "sum"] = "mean"
    epochs: Count = 32
    batch_size: Count = 32
    learning_rate: Positive = 1e-3
    clip_norm: Positive = 0.5
    precision: Precision = "auto"  # "auto": bfloat16 products where the processor has them
    seed: Natural = 0

    learns = True

    @property
    def pair_gap(self) -> int:
        """Training is on pairs of frames."""
        return self.max_gap

    @property
    def gradient_norm(self) -> float:
        """As in the released code."""
        return self.clip_norm


@dataclass(frozen=True)
class Features(encoder.EncoderFeatures):
    """No settings."""

    @property
    def kind(self) -> Kind:
        """Images, each with its mask."""
        return "masked"


class Encoder(encoder.Encoder):
    """(B, C, H, W) uint8 -> {"image": the same, "attention": (B, h, w) float32 in [0, 1]}.

    Raises ValueError for images of less than 36 pixels a side.
    """

    labels = True

    def __init__(self, config: Config, features: Features, image_shape: Shape) -> None:
        super().__init__(config, features, image_shape)
        self.mask = Mask(image_shape)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Obs:
        """Masked obs; the image is copied, so that a caller's buffer may be written again."""
        return {"image": image.clone(), "attention": self.attention(image)}

    def attention(self, image: Tensor) -> Tensor:
        """Ψ's mask, (B, h, w)."""
        check_image(image, self.image_shape)
        if is_batched(image):
            masks = [
                batched(self.mask, part.float() / 255) for part in torch.split(image, TOGETHER)
            ]
        else:
            masks = [self.mask(part.float() / 255) for part in passes(image)]
        return torch.cat(masks)[:, 0]

    def saliency_map(self, image: Tensor) -> Tensor:
        """The mask (B, 1, H, W), each cell over its share of the frame."""
        return F.interpolate(self.attention(image)[:, None], image.shape[2:], mode="nearest")

    def panels(self, image: Tensor) -> dict[str, Picture]:
        """One frame (1, C, H, W), its mask, and keypoints (Figs. 8 and 9)."""
        frame, mask = picture(image[0]), self.saliency_map(image)
        values = mask[0, 0].cpu().numpy()
        return {"frame": frame, "mask": heat_map(values), "masked": overlay(frame, values)} | {
            f"k = {k}": mark_points(frame, keypoints(mask, k)[0]) for k in KEYPOINTS
        }


class Pretraining(encoder.EncoderTraining):
    """Reconstructs targets from sources through the mask."""

    def __init__(self, config: Config, image_shape: Shape) -> None:
        super().__init__()
        self.config, self.image_shape = config, image_shape
        self.model = AttentionAutoencoder(image_shape)
        self.model.initialise(config.seed)
        cast(Any, self.model).to(memory_format=torch.channels_last)  # twice as fast on a CPU

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """Eq. 2; batch: image, the targets, and source, both (B, H, W, C) uint8."""
        source, target = _to_unit(batch["source"]), _to_unit(batch["image"])
        c = self.config
        with autocast(c.precision, target.device):
            output = self.model(source, target)
        return attention_loss(
            output.float(),
            target,
            delta=c.delta,
            sparsity=c.sparsity,
            reduction=c.reduction,
        )

    def optimizer(
        self, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Adam at a constant rate."""
        optimizer = torch.optim.Adam(self.parameters(), self.config.learning_rate)
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0, 0)

    @torch.no_grad()
    def panels(self, batch: Mapping[str, Any]) -> dict[str, Picture]:
        """A pair: source, target, the target's mask, and both reconstructions."""
        source, target = _to_unit(batch["source"]), _to_unit(batch["image"])
        output = self.model(source, target)
        mask = F.interpolate(output.mask, target.shape[2:], mode="nearest")[0, 0]
        images = {"source": source, "target": target, "reconstruction": output.target}
        panels = {name: _picture(image[0]) for name, image in images.items()}
        panels["mask of the target"] = heat_map(mask.cpu().numpy())
        return panels | {"autoencoder": _picture(output.auto[0])}

    def encoder(self, features: Any = None, saliency: Any = None) -> Encoder:
        """The frozen encoder with the current mask generator."""
        frozen = Encoder(self.config, features or Features(), self.image_shape)
        frozen.mask.load_state_dict(self.model.mask.state_dict())
        return frozen


def _to_unit(images: Tensor) -> Tensor:
    """(B, H, W, C) uint8 -> (B, C, H, W) float32 in [0, 1], channels last in memory."""
    return (channels_first(images).float() / 255).contiguous(memory_format=torch.channels_last)


def _picture(image: Tensor) -> Picture:
    """(C, H, W), 0 to 1 or a little beyond -> (H, W, 3)."""
    return picture((image.clamp(0, 1) * 255).round().byte())
