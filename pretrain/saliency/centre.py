"""A control: the middle of the picture matters most, whatever is in it. Nothing is learned."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from pretrain.saliency_source import bump


@dataclass(frozen=True)
class Config:
    """Width of the bump."""

    sigma: float = 0.25  # of each side

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ValueError(f"sigma: {self.sigma}, must be above 0")


class Saliency(nn.Module):
    """(B, C, H, W) uint8 -> (B, 1, H, W) float32 in [0, 1], the same for every frame."""

    bump: Tensor

    def __init__(self, config: Config, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.config, self.image_shape = config, image_shape
        middle = bump(*image_shape[1:], config.sigma)
        self.register_buffer("bump", middle[None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """The bump, once a frame."""
        return self.bump.repeat(image.shape[0], 1, 1, 1)


def fit(config: Config, images: Tensor) -> Saliency:
    """The source for images (N, C, H, W), of which only the size matters."""
    channels, height, width = images.shape[1:]
    return Saliency(config, (channels, height, width))
