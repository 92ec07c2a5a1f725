"""Crops against torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as vision

from pretrain.transforms import crops


@pytest.mark.parametrize("size", [(64, 64), (24, 40)])
def test_a_crop_is_torchvisions(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    images = torch.rand(40, 4, *size)
    boxes = torch.from_numpy(crops.boxes(rng, 40, size))
    boxes[0] = torch.tensor([0, 0, *size])  # nothing cut away
    mirrored = torch.arange(40) % 2 == 1
    cropped = crops.crop(images, boxes, mirrored)
    for image, box, flip, own in zip(images, boxes.tolist(), mirrored, cropped, strict=True):
        expected = vision.resized_crop(
            image, *box, list(size), InterpolationMode.BILINEAR, antialias=False
        )
        expected = vision.hflip(expected) if flip else expected
        torch.testing.assert_close(own, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(cropped[0], images[0], atol=2e-5, rtol=0)


def test_boxes_are_spread_as_torchvisions() -> None:
    ours = crops.boxes(np.random.default_rng(1), 6000, (64, 64))
    torch.manual_seed(0)
    image = torch.zeros(3, 64, 64)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, [0.2, 1.0], [0.75, 4 / 3]) for _ in range(6000)]
    )
    assert ours.min() >= 0 and (ours[:, :2] + ours[:, 2:]).max() <= 64
    for column in range(4):
        own, other = (
            np.quantile(a[:, column], np.linspace(0.05, 0.95, 10)) for a in (ours, theirs)
        )
        np.testing.assert_allclose(own, other, atol=1.5)
    ratio = np.log(ours[:, 3] / ours[:, 2])
    assert abs(ratio.mean()) < 0.02
    area = ours[:, 2] * ours[:, 3] / 4096
    assert 0.19 < area.min() < 0.22 and area.max() <= 1


@pytest.mark.parametrize("size", [(10, 100), (100, 10), (64, 64)])
def test_if_no_box_fits_the_crop_is_the_middle(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crops, "SCALE", (1.5, 2.0))
    expected = RandomResizedCrop.get_params(torch.zeros(3, *size), [1.5, 2.0], [0.75, 4 / 3])
    regions = crops.boxes(np.random.default_rng(0), 3, size)
    assert regions.tolist() == [list(expected)] * 3


def test_boxes_depend_on_the_generator_alone() -> None:
    one, other = (crops.boxes(np.random.default_rng(5), 7, (64, 64)) for _ in range(2))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, crops.boxes(np.random.default_rng(6), 7, (64, 64)))
