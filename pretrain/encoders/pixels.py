"""The frames as they are: what a policy that learns its own eyes gets. Nothing is trained and
nothing is lost.

The control that every pretrained encoder is measured against; SPIRL's DE-Rainbow rows (Tables 2 and
11) stand on it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from pretrain.encoder import Obs, check_image

KIND = "pixels"  # of its features: which nets take them


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


@dataclass(frozen=True)
class Features:
    """Nothing to set."""


class Encoder(nn.Module):
    """(B, C, H, W) uint8 -> {"image": the same}."""

    max_tokens = 0
    dim = 0

    def __init__(
        self, config: Config, features: Features, image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.config, self.features, self.image_shape = config, features, image_shape

    def forward(self, image: Tensor) -> Obs:
        """Pixels obs; the image is copied, so that a caller's buffer may be written again."""
        check_image(image, self.image_shape)
        return {"image": image.clone()}
