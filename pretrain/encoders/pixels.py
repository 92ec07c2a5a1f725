"""The frames themselves, for a policy that learns its own features. Nothing is pretrained.

The control for every pretrained encoder; SPIRL's DE-Rainbow rows (Tables 2 and 11) use it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pretrain import encoder
from pretrain.encoder import Kind, Obs, check_image


@dataclass(frozen=True)
class Config(encoder.EncoderConfig):
    """No settings."""


@dataclass(frozen=True)
class Features(encoder.EncoderFeatures):
    """No settings."""

    @property
    def kind(self) -> Kind:
        """Images."""
        return "pixels"


class Encoder(encoder.Encoder):
    """(B, C, H, W) uint8 -> {"image": the same}."""

    any_image = True

    def forward(self, image: Tensor) -> Obs:
        """Pixels obs; the image is copied, so that a caller's buffer may be written again."""
        check_image(image, self.image_shape)
        return {"image": image.clone()}
