"""Keypoints of a saliency map, and how well they find a frame's objects: recall and precision.

Wu, Khetarpal and Precup (2021), "Bottom-up Object Extraction", Table 1. A map's keypoints are the
`k` strongest of its 3x3 maxima over a grid of cells; k is chosen when they are taken. A place is
(x, y) in [-1, 1] from the frame's upper left corner to its lower right one.

Differs from the paper's released code: a keypoint lies at its cell's centre, not at its corner;
maps are not blurred first; and where a map has fewer maxima than k there are fewer keypoints, not
arbitrary cells.

Neither k nor the distance ε of a hit is in the paper. k = 7 follows from its ratio of precision to
recall (five objects of Ms. Pacman). ε = 0.2 is our choice: 8.4 of 84 pixels, when the centre of a
7x7 cell lies up to 0.2 from its corners. So the curve over ε is what to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

CELLS = (7, 7)  # rows and columns: those of the mask on 84x84
K, EPSILON = 7, 0.2
EPSILONS = tuple(round(0.05 * n, 2) for n in range(1, 11))

Points = NDArray[np.float64]  # (n, 2): x to the right, y down, -1 to 1


def keypoints(maps: Tensor, k: int, cells: tuple[int, int] = CELLS) -> list[Points]:
    """The keypoints of each map (B, 1, H, W), strongest first, at most `k`: 3x3 maxima of the means
    over `cells`, without those at the map's minimum.

    Raises ValueError for a `k` that is not within 1 and the number of cells.
    """
    rows, columns = cells
    if not 1 <= k <= rows * columns:
        raise ValueError(f"k: {k}, must be 1 to the {rows * columns} cells of a {rows}x{columns}")
    grid = F.adaptive_avg_pool2d(maps.double(), cells)
    highest = F.max_pool2d(grid, 3, stride=1, padding=1)
    peaks = (grid == highest) & (grid > grid.amin((2, 3), keepdim=True))
    value = grid.masked_fill(~peaks, -torch.inf).flatten(1)
    order = value.argsort(dim=1, descending=True, stable=True)[:, :k]
    count = peaks.flatten(1).sum(1).clamp(max=k)
    return [centres(order[b, : count[b]].cpu().numpy(), cells) for b in range(len(maps))]


def centres(numbers: NDArray[np.int64], cells: tuple[int, int] = CELLS) -> Points:
    """Where the centres of cells, row-major numbers (n,), lie: (n, 2)."""
    rows, columns = cells
    x, y = numbers % columns, numbers // columns
    return np.stack([(x + 0.5) / columns, (y + 0.5) / rows], axis=1) * 2 - 1


def uniform_grid(k: int) -> Points:
    """A control: `k` places spread evenly in rows, whatever is in the frame."""
    rows = max(1, round(k**0.5))
    lengths = [k // rows + (row < k % rows) for row in range(rows)]
    places = [
        ((2 * column + 1) / length - 1, (2 * row + 1) / rows - 1)
        for row, length in enumerate(lengths)
        for column in range(length)
    ]
    return np.array(places)


def random_cells(k: int, rng: np.random.Generator, cells: tuple[int, int] = CELLS) -> Points:
    """A control: the centres of `k` different cells, sampled for each frame."""
    return centres(rng.permutation(cells[0] * cells[1])[:k], cells)


def central_cells(k: int, cells: tuple[int, int] = CELLS) -> Points:
    """A control: the centres of the `k` cells nearest to the frame's centre."""
    everywhere: Points = centres(np.arange(cells[0] * cells[1]), cells)
    nearest: Points = everywhere[np.linalg.norm(everywhere, axis=1).argsort(kind="stable")[:k]]
    return nearest


@dataclass(frozen=True)
class Detection:
    """Hits over all frames, at one ε. Recall and precision are over objects and keypoints."""

    epsilon: float
    hits: int
    objects: int
    keypoints: int

    @property
    def recall(self) -> float:
        """Share of the objects that a keypoint hits; NaN where there are none."""
        return self.hits / self.objects if self.objects else float("nan")

    @property
    def precision(self) -> float:
        """Share of the keypoints that hit an object; NaN where there are none."""
        return self.hits / self.keypoints if self.keypoints else float("nan")


def detection(
    points: Sequence[Points], objects: Sequence[Points], epsilons: Sequence[float] = EPSILONS
) -> list[Detection]:
    """Keypoints against objects, frame by frame, at each ε.

    Raises ValueError where the frames are not as many.
    """
    pairs = list(zip(points, objects, strict=True))
    totals = sum(len(o) for o in objects), sum(len(f) for f in points)
    return [Detection(e, sum(hits(f, o, e) for f, o in pairs), *totals) for e in epsilons]


def hits(points: Points, objects: Points, epsilon: float) -> int:
    """How many keypoints are nearer than `epsilon` to an object of their own, at most: a matching
    of one to one at minimum cost, where a miss costs more than all hits together.
    """
    if not len(points) or not len(objects):
        return 0
    distance = np.linalg.norm(points[:, None] - objects[None], axis=2)
    near = distance < epsilon
    cost = np.where(near, distance, epsilon * (min(distance.shape) + 1))
    return int(near[linear_sum_assignment(cost)].sum())


def ceiling(objects: Sequence[Points], k: int) -> float:
    """The recall that `k` keypoints a frame cannot exceed."""
    most = sum(min(len(o), k) for o in objects)
    return most / max(1, sum(len(o) for o in objects))
