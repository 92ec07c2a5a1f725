"""Input channels of a CNN that is trained with the policy: RGB, saliency, or both.

Liang, Thomason and Bıyık, "ViSaRL: Visual Reinforcement Learning Guided by Human Saliency" (2024),
Table I's CNN rows, RGB x saliency masks each colour by the map, RGBS puts the map beside them as a
fourth channel.

Nothing is pretrained. Differs from the released code: every channel is on the scale 0 to 255 that
the CNN divides by. The code divides a map in 0 to 1 by 255 once more, so that its "Saliency" and
its fourth channel are never above 0.004. And a map alone is one channel, not three equal ones.

Expect mean success over four tasks (Table I): RGB 0.45, saliency 0.05 (presumably with the code's
mistake), RGB x saliency 0.35, RGBS 0.58.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pretrain import encoder
from pretrain.encoder import Kind, Obs, Shape, check_image
from pretrain.figures import heat_map, picture


@dataclass(frozen=True)
class Config(encoder.EncoderConfig):
    """Which channels: `rgb`, `saliency`, `rgbxs` (RGB x saliency) or `rgbs`."""

    channels: Literal["rgb", "saliency", "rgbxs", "rgbs"] = "rgbs"

    @property
    def needs_saliency(self) -> bool:
        """Whether the encoder carries a source of maps."""
        return self.channels != "rgb"


@dataclass(frozen=True)
class Features(encoder.EncoderFeatures):
    """No settings."""

    @property
    def kind(self) -> Kind:
        """Images."""
        return "pixels"


class Encoder(encoder.Encoder):
    """(B, 3, H, W) uint8 -> {"image": (B, C, H, W) uint8}: C is 3, 1, 3 or 4, all in 0 to 255.

    `saliency` is the source of maps that it carries, (B, 3, H, W) uint8 -> (B, 1, H, W) float32.
    Raises ValueError if it is missing.
    """

    def __init__(
        self,
        config: Config,
        features: Features,
        image_shape: Shape,
        saliency: nn.Module | None = None,
    ) -> None:
        super().__init__(config, features, image_shape)
        self.carry(saliency)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Obs:
        """Pixels obs; the map is rounded to 8 bits, as stored maps are."""
        check_image(image, self.image_shape)
        if self.saliency is None:
            return {"image": image.clone()}  # a caller's buffer may be written again
        saliency = self.saliency(image)
        if self.config.channels == "rgbxs":
            return {"image": (image * saliency).round().to(torch.uint8)}
        plane = (saliency * 255).round().to(torch.uint8)
        if self.config.channels == "rgbs":
            plane = torch.cat([image, plane], dim=1)
        return {"image": plane}

    def panels(self, image: Tensor) -> dict[str, NDArray[np.uint8]]:
        """One frame (1, 3, H, W) uint8 and its channels: caption -> picture (H, W, 3)."""
        channels = self(image)["image"][0].permute(1, 2, 0).cpu().numpy()
        pictures = {"frame": picture(image[0])}
        if channels.shape[2] >= 3:
            pictures["RGB channels"] = channels[..., :3]
        if channels.shape[2] in (1, 4):
            pictures["saliency channel"] = heat_map(channels[..., -1] / 255)
        return pictures
