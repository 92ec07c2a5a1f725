"""What a frozen encoder makes of what an environment shows: of its images, or of its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.errors import FoveaError
from pretrain.encoder import Encoder, Obs

Images = NDArray[np.uint8]  # (B, H, W, 3)
Infos = Mapping[str, Any]  # name -> (B, ...), as gymnasium's vector environments have them


def sees(encoder: Encoder) -> bool:
    """Whether it looks at images; one of the state gets an entry of info instead."""
    return encoder.info is None


def example_of(encoder: Encoder, device: torch.device | str) -> Obs:
    """Features of one blank frame."""
    return encoder(encoder.blank().to(device))


@torch.no_grad()
def encode(
    encoder: Encoder, env: str, images: Images, infos: Infos, device: torch.device | str
) -> Obs:
    """Features (B, ...) of what the environment `env` shows.

    Raises FoveaError where the encoder was made for another size.
    """
    if encoder.info is not None:
        return encoder(torch.from_numpy(np.asarray(infos[encoder.info], np.float32)).to(device))
    image = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
    if encoder.image_shape not in (None, tuple(image.shape[1:])):
        raise FoveaError(
            f"encoder: made for images {encoder.image_shape}, but {env} shows "
            f"{tuple(image.shape[1:])}; use an encoder pretrained on frames of that size"
        )
    return encoder(image)
