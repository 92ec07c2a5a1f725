"""Images of any size -> the height and width that the name of an environment states."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

MOST = 1024  # pixels of a side
RESIZE = "INTER_AREA; INTER_LINEAR where a side grows"  # OpenCV's names for what resized() does


def odd_sides(height: str, width: str) -> Iterator[str]:
    """The mistakes in the options `height` and `width` of an environment's name."""
    known = {str(side) for side in range(1, MOST + 1)}
    for name, side in (("height", height), ("width", width)):
        if side not in known:
            yield f"{name}: {side!r}, must be a number of pixels, 1 to {MOST}"


def resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(H, W, C) -> (height, width, C), without regard to proportions: by area where neither side
    grows, else bilinearly. A copy.
    """
    if image.shape[:2] == (height, width):
        return image.copy()
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    result = cv2.resize(image, (width, height), interpolation=how)
    return np.asarray(result, np.uint8).reshape(height, width, image.shape[2])
