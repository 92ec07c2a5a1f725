"""Bytes as numbers, in the precision that products have where they are used."""

from __future__ import annotations

import torch
from torch import Tensor


def scaled(image: Tensor) -> Tensor:
    """Bytes (B, C, H, W) to 0…1, channels last, in the precision that products have here.

    A third faster than `image.float() / 255`, which convolutions would then have to convert: few
    bytes are laid out anew instead of many floats.
    """
    kind = image.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    return image.contiguous(memory_format=torch.channels_last).to(dtype).div_(255)
