"""Clicks -> saliency maps: a Gaussian for each click, as in ViSaRL (Liang et al.).

The paper gives sigma as 10 pixels on the 400x400 canvas; its released maps have 10.6. Those are
rendered on the canvas and shrunk. Here the same sum is evaluated at the centres of the map's own
pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CANVAS = 400.0  # width and height that clicks are measured in, whatever the frame's size
SIGMA = 10.0  # canvas pixels
SPREAD = (SIGMA, SIGMA)  # along x and y

Clicks = NDArray[np.float64]  # (n, 2): x to the right, y down, 0 to CANVAS


def heat_map(clicks: Clicks, height: int, width: int) -> NDArray[np.uint8]:
    """(height, width): the sum of the clicks' Gaussians, its maximum 255; zero without clicks."""
    return mean_map([clicks], height, width)


def mean_map(
    annotators: Sequence[Clicks], height: int, width: int, spread: tuple[float, float] = SPREAD
) -> NDArray[np.uint8]:
    """(height, width): the mean of the annotators' heat maps, its maximum 255 again. `spread` is
    the Gaussian's standard deviation along x and y, in canvas pixels.

    Without that, three annotators who click on three places would mark none of them: each place
    would get 85, and a pixel counts as salient from half of 255 on.
    """
    maps = [_to_one(_heat(clicks, height, width, spread)) for clicks in annotators]
    mean = np.mean(maps, axis=0)
    return np.rint(255.0 * _to_one(mean)).astype(np.uint8)


def _heat(
    clicks: Clicks, height: int, width: int, spread: tuple[float, float]
) -> NDArray[np.float64]:
    """The sum of the Gaussians."""
    columns = _gaussians(clicks[:, 0], width, spread[0])
    rows = _gaussians(clicks[:, 1], height, spread[1])
    total: NDArray[np.float64] = rows.T @ columns
    return total


def _to_one(heat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scaled to a maximum of 1, unless it is zero everywhere."""
    scaled: NDArray[np.float64] = heat / (heat.max() or 1.0)
    return scaled


def _gaussians(centres: NDArray[np.float64], size: int, sigma: float) -> NDArray[np.float64]:
    """(n, size): exp(-d^2 / 2 sigma^2) at the centre of each of `size` pixels along the canvas."""
    pixels = (np.arange(size) + 0.5) * CANVAS / size
    values: NDArray[np.float64] = np.exp(-0.5 * ((pixels - centres[:, None]) / sigma) ** 2)
    return values
