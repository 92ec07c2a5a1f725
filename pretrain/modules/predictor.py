"""Parts that learned predictors of saliency share: frames are resized to the network's input size,
and maps back to the frame's, by nearest neighbours as in ViSaRL's code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.encoder import passes


def resize(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """(B, C, H, W) at another size, by nearest neighbours; returned unchanged if it fits."""
    size = (size, size) if isinstance(size, int) else size
    return image if tuple(image.shape[2:]) == size else F.interpolate(image, size, mode="nearest")


def to_unit(image: Tensor, size: int) -> Tensor:
    """Frames or maps (B, C, H, W) uint8 -> (B, C, size, size) float32 in [0, 1]."""
    return resize(image.float() / 255, size)


def frames_to_unit(image: Tensor, size: int) -> Tensor:
    """Frames (B, C, H, W) uint8 -> (B, 3, size, size) float32 in [0, 1]; gray frames get three
    equal channels.
    """
    return to_unit(image, size).expand(-1, 3, -1, -1)


def predict(network: Callable[[Tensor], Tensor], image: Tensor, size: int) -> Tensor:
    """Maps (B, 1, H, W) in [0, 1] of frames (B, C, H, W) uint8, by a network from images
    (B, 3, size, size) in [0, 1] to logits (B, 1, size, size).
    """
    logits = torch.cat([network(frames_to_unit(part, size)) for part in passes(image)])
    return resize(logits.sigmoid(), (image.shape[2], image.shape[3]))
