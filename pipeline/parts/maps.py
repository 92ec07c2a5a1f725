"""The maps of a saliency source for frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.errors import FoveaError
from datasets.saliency import Indices, Maps
from datasets.shards import FrameSet
from pretrain.encoder import SaliencySource, Shape
from pretrain.images import channels_first

BATCH = 32  # frames in a pass
FloatMaps = NDArray[np.float32]  # (n, H, W) in [0, 1]


def label(source: SaliencySource, frames: FrameSet, indices: Indices, device: str) -> Maps:
    """Maps (n, H, W) uint8 of `frames[indices]`."""
    return to_bytes(predict(source, frames.images[indices], device))


def to_bytes(values: FloatMaps) -> Maps:
    """Maps in [0, 1] as uint8, rounded."""
    maps: Maps = np.rint(values * np.float32(255)).astype(np.uint8)
    return maps


@torch.no_grad()
def predict(source: SaliencySource, images: NDArray[np.uint8], device: str = "cpu") -> FloatMaps:
    """The source's maps (N, H, W) in [0, 1] of images (N, H, W, C)."""
    batches = torch.split(channels_first(images), BATCH)
    maps = [source(batch.contiguous().to(device))[:, 0].cpu().numpy() for batch in batches]
    return np.concatenate(maps)


def check_size(image_shape: Shape | None, frames: FrameSet, by: Path) -> None:
    """Raise FoveaError if a source is for images of another shape than these frames."""
    height, width, channels = frames.images.shape[1:]
    if image_shape not in (None, (channels, height, width)):
        raise FoveaError(
            f"{by}: is for images {image_shape}, these frames are {(channels, height, width)}; "
            "name a source for frames of this size"
        )
