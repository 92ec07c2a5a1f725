"""Pictures of data sets, the same pixels every time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GAP = 2  # pixels between two frames of a sheet
PAPER = 255  # grey level of a sheet's background


def contact_sheet(images: NDArray[np.uint8], columns: int) -> Image.Image:
    """The images (N, H, W, C), row after row of `columns`, on white."""
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    shape = (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3)
    sheet = np.full(shape, PAPER, np.uint8)
    for i, image in enumerate(images):
        top, left = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = rgb(image)
    return Image.fromarray(sheet)


def rgb(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images (..., H, W, C) in colour or gray -> (..., H, W, 3)."""
    return images if images.shape[-1] == 3 else np.repeat(images, 3, axis=-1)


def spread(count: int, most: int) -> NDArray[np.int64]:
    """Up to `most` indices spread evenly over `count` items, first and last among them."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
