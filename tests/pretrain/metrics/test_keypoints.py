"""Keypoints against a loop over the cells, hits against all possible matchings."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.metrics.keypoints import (
    Points,
    ceiling,
    central_cells,
    centres,
    detection,
    hits,
    keypoints,
    random_cells,
    uniform_grid,
)


def plain_keypoints(grid: np.ndarray, k: int) -> list[tuple[float, float]]:
    """Cell by cell, with its neighbours one by one."""
    rows, columns = grid.shape
    peaks = []
    for row in range(rows):
        for column in range(columns):
            near = grid[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            if grid[row, column] == near.max() and grid[row, column] > grid.min():
                peaks.append((-grid[row, column], row, column))
    return [
        ((column + 0.5) / columns * 2 - 1, (row + 0.5) / rows * 2 - 1)
        for _, row, column in sorted(peaks)[:k]
    ]


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([(7, 7), (3, 5), (1, 4)]))
def test_keypoints_are_the_strongest_local_maxima(
    seed: int, k: int, cells: tuple[int, int]
) -> None:
    """With ties, which are frequent in a grid of few values; a map of whole cells equals
    that grid.
    """
    rng = np.random.default_rng(seed)
    grid = rng.integers(0, rng.integers(2, 9), cells) / 8
    k = min(k, cells[0] * cells[1])
    maps = torch.from_numpy(np.kron(grid, np.ones((4, 6))))[None, None].float()
    (points,) = keypoints(maps, k, cells)
    np.testing.assert_allclose(points, np.array(plain_keypoints(grid, k)).reshape(-1, 2))


def test_a_batch_is_its_maps_one_by_one_and_an_even_map_has_no_keypoints() -> None:
    maps = torch.rand(5, 1, 84, 84, generator=torch.Generator().manual_seed(0))
    maps[3] = 0.5
    together = keypoints(maps, 7)
    for b, points in enumerate(together):
        np.testing.assert_array_equal(points, keypoints(maps[b : b + 1], 7)[0])
    assert len(together[3]) == 0 and 1 <= len(together[0]) <= 7


def test_k_beyond_the_cells_is_refused() -> None:
    for k in (0, 50):
        with pytest.raises(ValueError, match=f"k: {k}, must be 1 to the 49 cells of a 7x7"):
            keypoints(torch.zeros(1, 1, 84, 84), k)


def most_hits(points: Points, objects: Points, epsilon: float) -> int:
    """The most hits of any assignment of the smaller set to the larger."""
    few, many = sorted((points.tolist(), objects.tolist()), key=len)
    return max(
        sum(
            bool(np.hypot(a[0] - b[0], a[1] - b[1]) < epsilon)
            for a, b in zip(few, order, strict=True)
        )
        for order in permutations(many, len(few))
    )


@settings(max_examples=80)
@given(
    st.integers(0, 2**32 - 1), st.integers(0, 5), st.integers(0, 5), st.sampled_from([0.1, 0.4, 2])
)
def test_hits_are_the_best_matching(seed: int, count: int, objects: int, epsilon: float) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.uniform(-1, 1, (count, 2)), rng.uniform(-1, 1, (objects, 2))
    assert hits(one, other, epsilon) == most_hits(one, other, epsilon)


def test_a_far_object_does_not_take_a_near_ones_keypoint() -> None:
    """A matching of least cost would match the left keypoint to an object beyond the threshold."""
    points = np.array([[0.0, 0.0], [0.19, 0.0]])
    objects = np.array([[0.1, 0.0], [5.0, 0.0]])
    assert hits(points, objects, 0.15) == 1
    assert hits(np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[0.2, 0.0], [-0.1, 0.0]]), 0.25) == 1
    assert hits(np.zeros((3, 2)), np.zeros((1, 2)), 0.1) == 1, "one object, one hit"


def test_recall_and_precision_count_objects_and_keypoints_of_all_frames() -> None:
    at = np.array
    points = [at([[0.0, 0.0], [0.9, 0.9]]), at([[0.5, 0.5]]), np.empty((0, 2))]
    objects = [at([[0.05, 0.0]]), np.empty((0, 2)), at([[0.0, 0.0], [0.5, 0.0]])]
    near, far = detection(points, objects, (0.01, 0.1))
    assert (near.hits, near.objects, near.keypoints) == (0, 3, 3)
    assert far.recall == pytest.approx(1 / 3) and far.precision == pytest.approx(1 / 3)
    assert ceiling(objects, 1) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="zip"):
        detection(points[:2], objects)


def test_controls_do_not_depend_on_the_frame() -> None:
    grid = uniform_grid(7)
    assert grid.shape == (7, 2) and np.abs(grid).max() < 1
    np.testing.assert_allclose(grid.mean(0)[0], 0, atol=1e-9)
    assert len({tuple(point) for point in grid.tolist()}) == 7
    control = random_cells(7, np.random.default_rng(0))
    assert len({tuple(point) for point in control.tolist()}) == 7
    middle = central_cells(9)
    np.testing.assert_allclose(middle[0], 0, atol=1e-12)
    assert np.abs(middle).max() < 0.3, "the middle three by three"
    everywhere = {tuple(point) for point in centres(np.arange(49)).tolist()}
    assert {tuple(point) for point in control.tolist()} <= everywhere
