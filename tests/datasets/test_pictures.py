"""Contact sheets."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.pictures import GAP, contact_sheet, spread


def test_every_image_is_on_the_sheet_in_order() -> None:
    """Five images in three columns: two rows, the last cell white."""
    images = np.random.default_rng(0).integers(0, 255, (5, 4, 6, 3), dtype=np.uint8)
    sheet = np.asarray(contact_sheet(images, 3))
    assert sheet.shape == (2 * (4 + GAP) + GAP, 3 * (6 + GAP) + GAP, 3)
    for i, image in enumerate(images):
        top, left = GAP + i // 3 * (4 + GAP), GAP + i % 3 * (6 + GAP)
        np.testing.assert_array_equal(sheet[top : top + 4, left : left + 6], image)
    assert (sheet[-4 - GAP :, -6 - GAP :] == 255).all()
    assert contact_sheet(images, 3).tobytes() == contact_sheet(images, 3).tobytes()


@pytest.mark.parametrize(("count", "expected"), [(1, 5), (5, 5), (5000, 40), (7, 3)])
def test_spread_is_even_and_has_both_ends(count: int, expected: int) -> None:
    """No index twice."""
    indices = spread(count, expected)
    assert (indices[0], indices[-1]) == (0, count - 1)
    assert len(set(indices.tolist())) == min(count, expected)
    gaps = np.diff(indices)
    assert max(gaps, default=0) - min(gaps, default=0) <= 1
