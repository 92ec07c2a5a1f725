"""The input of a trainable CNN from a frame and its saliency: on one scale, pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pretrain.encoders.channels import Config, Encoder, Features

SHAPE = (3, 4, 6)


class Ramp(nn.Module):
    """A source of saliency: the same map for every frame, 0 to 1."""

    def forward(self, image: Tensor) -> Tensor:
        plane = torch.linspace(0, 1, SHAPE[1] * SHAPE[2]).view(1, 1, *SHAPE[1:])
        return plane.expand(image.shape[0], -1, -1, -1)


@pytest.mark.parametrize("channels", ["rgb", "saliency", "rgbxs", "rgbs"])
def test_channels_pixel_by_pixel(channels: Any) -> None:
    image = torch.randint(0, 256, (2, *SHAPE), dtype=torch.uint8)
    saliency = Ramp()(image).numpy()
    config = Config(channels=channels)
    encoder = Encoder(config, Features(), SHAPE, Ramp() if config.needs_saliency else None)
    planes = encoder(image)["image"]
    assert planes.dtype == torch.uint8
    for frame in range(2):
        for y in range(SHAPE[1]):
            for x in range(SHAPE[2]):
                pixel = image[frame, :, y, x].tolist()
                share = float(saliency[frame, 0, y, x])
                expected = {
                    "rgb": pixel,
                    "saliency": [share * 255],
                    "rgbxs": [value * share for value in pixel],
                    "rgbs": [*pixel, share * 255],
                }[channels]
                np.testing.assert_allclose(planes[frame, :, y, x].tolist(), expected, atol=0.501)
