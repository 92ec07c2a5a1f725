"""A control: the centre prior, a Gaussian about the centre of every frame. Nothing is learned."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from datasets.checked import Positive
from pretrain import encoder
from pretrain.modules.maps import centre_prior


@dataclass(frozen=True)
class Config(encoder.SaliencyConfig):
    """Width of the prior."""

    sigma: Positive = 0.25  # of each side


class Saliency(encoder.Saliency):
    """(B, C, H, W) uint8 -> (B, 1, H, W) float32 in [0, 1], the same for every frame."""

    prior: Tensor

    def __init__(self, config: Config, image_shape: encoder.Shape) -> None:
        super().__init__(config, image_shape)
        prior = centre_prior(*image_shape[1:], config.sigma)
        self.register_buffer("prior", prior[None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """The prior, once a frame."""
        return self.prior.repeat(image.shape[0], 1, 1, 1)


def fit(config: Config, images: Tensor) -> Saliency:
    """The source for images (N, C, H, W); only their size is used."""
    channels, height, width = images.shape[1:]
    return Saliency(config, (channels, height, width))
