"""Two emulator screens -> an agent's image, in the preprocessing of three families of papers.

    rgb96   (96, 96, 3)   pixelwise maximum, resized bilinearly (SPIRL, Jiang and Weng 2023,
                          Table 9)
    gray84  (84, 84, 1)   pixelwise maximum, luma, resized by area (OpenAI Baselines' WarpFrame,
                          after Mnih et al. 2015; Wu et al. 2021, Nikulin et al. 2019)
    native  (210, 160, 3) the last screen alone (S3TA, Mott et al. 2019, A.4); some games have more
                          rows: Carnival 214, JourneyEscape 230

Images are stacked where they are used; on disk there is one image a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Screen:
    """One preprocessing: `render(third, fourth)` of the emulator's screens (rows, 160, 3)."""

    channels: int
    size: tuple[int, int] | None  # height and width of the image; None: the emulator's own
    render: Callable[[Image, Image], Image]
    pooled: int  # screens under the pixelwise maximum; 1: the last alone
    resize: str | None  # OpenCV's interpolation


def _rgb96(third: Image, fourth: Image) -> Image:
    pooled = np.maximum(third, fourth)
    return np.asarray(cv2.resize(pooled, (96, 96), interpolation=cv2.INTER_LINEAR), np.uint8)


def _gray84(third: Image, fourth: Image) -> Image:
    luma = cv2.cvtColor(np.maximum(third, fourth), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(luma, (84, 84), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)[..., None]


def _native(third: Image, fourth: Image) -> Image:
    return fourth.copy()


SCREENS = {
    "rgb96": Screen(3, (96, 96), _rgb96, 2, "INTER_LINEAR"),
    "gray84": Screen(1, (84, 84), _gray84, 2, "INTER_AREA"),
    "native": Screen(3, None, _native, 1, None),
}
