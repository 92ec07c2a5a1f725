"""Clicks into saliency maps: a Gaussian for each click, as in ViSaRL (Liang et al.).

The paper says sigma 10 pixels on the 400x400 canvas that was clicked; its released maps are 10.6.
Theirs are rendered on the canvas and shrunk; here the same sum is taken at the centres of the map's
own pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CANVAS = 400.0  # width and height that clicks are measured in, whatever the frame's size
SIGMA = 10.0  # canvas pixels

Clicks = NDArray[np.float64]  # (n, 2): x to the right, y down, 0 to CANVAS


def heat_map(clicks: Clicks, height: int, width: int) -> NDArray[np.uint8]:
    """(height, width): the sum of the clicks' Gaussians, its maximum 255; zero without clicks."""
    return mean_map([clicks], height, width)


def mean_map(annotators: Sequence[Clicks], height: int, width: int) -> NDArray[np.uint8]:
    """(height, width): the mean of the annotators' heat maps, its maximum 255 again.

    Were it left as it is, three who look at three places would mark none of them: each would get
    85, less than the half from which on a pixel counts as salient.
    """
    mean = np.mean([_to_one(_heat(clicks, height, width)) for clicks in annotators], axis=0)
    return np.rint(255.0 * _to_one(mean)).astype(np.uint8)


def _heat(clicks: Clicks, height: int, width: int) -> NDArray[np.float64]:
    """The sum of the Gaussians."""
    total: NDArray[np.float64] = _bells(clicks[:, 1], height).T @ _bells(clicks[:, 0], width)
    return total


def _to_one(heat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scaled to a maximum of 1, unless it is zero everywhere."""
    scaled: NDArray[np.float64] = heat / (heat.max() or 1.0)
    return scaled


def _bells(centres: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """(n, size): exp(-d^2 / 2 sigma^2) at the centre of each of `size` pixels along the canvas."""
    pixels = (np.arange(size) + 0.5) * CANVAS / size
    bells: NDArray[np.float64] = np.exp(-0.5 * ((pixels - centres[:, None]) / SIGMA) ** 2)
    return bells
