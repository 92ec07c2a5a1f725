"""Transporter: Gaussians, transport and gradients against plain arithmetic, and a keypoint that
follows a square.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pretrain.encoders.transporter import Config, Encoder, Features, Pretraining, gaussians

GRAY = (1, 84, 84)


def test_sizes() -> None:
    encoder = Encoder(Config(), Features(), GRAY)
    assert sum(p.numel() for p in encoder.parameters()) == 73_335
    image = torch.randint(0, 256, (3, *GRAY), dtype=torch.uint8)
    assert encoder(image)["attention"].shape == (3, 21, 21)
    points = encoder.keypoints(image)
    assert points.shape == (3, 7, 2) and points.abs().max() < 1
    with pytest.raises(ValueError, match="must be divisible by 4"):
        Encoder(Config(), Features(), (1, 84, 82))


def test_gaussians_are_at_their_keypoints() -> None:
    """Cell by cell: rows go down, columns to the right, cells are at their centres."""
    points = torch.tensor([[[0.5, -0.25], [-1.0, 1.0]]])
    maps = gaussians(points, (4, 8), 0.3)
    assert maps.shape == (1, 2, 4, 8)
    for k, (x, y) in enumerate(points[0].tolist()):
        for row in range(4):
            for column in range(8):
                dx, dy = (2 * column + 1) / 8 - 1 - x, (2 * row + 1) / 4 - 1 - y
                expected = math.exp(-(dx * dx + dy * dy) / 0.3**2)
                assert maps[0, k, row, column].item() == pytest.approx(expected, rel=1e-4)


def pair(method: Pretraining) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    source, target = torch.rand(2, 2, *method.image_shape, generator=generator)
    return source, target


def test_features_are_transported_one_keypoint_after_the_other() -> None:
    method = Pretraining(Config(k=3, filters=4), (1, 16, 24))
    source, target = pair(method)
    moved, features = method.features(source), method.features(target)
    erased = gaussians(method.keypointer(source), (4, 6), 0.1)
    copied = gaussians(method.keypointer(target), (4, 6), 0.1)
    for k in range(3):
        there, here = erased[:, k : k + 1], copied[:, k : k + 1]
        moved = moved * (1 - there) * (1 - here) + features * here
    torch.testing.assert_close(method.transport(source, target), method.decoder(moved))


def test_the_source_side_gets_no_gradient() -> None:
    method = Pretraining(Config(k=3, filters=4), (1, 16, 24))
    source, target = pair(method)
    source.requires_grad_()
    target.requires_grad_()
    torch.autograd.backward(method.transport(source, target).square().mean())
    assert source.grad is None and target.grad is not None
    assert all(p.grad is not None for p in method.parameters())


def test_a_keypoint_follows_a_square() -> None:
    """One keypoint, and one moving square: after 150 steps it is on the square in nearly all
    frames.
    """
    side, square = 32, 8
    rng = np.random.default_rng(0)
    places = rng.integers(0, side - square, (300, 2))
    images = np.full((300, side, side, 1), 60, np.uint8)
    for image, (y, x) in zip(images, places, strict=True):
        image[y : y + square, x : x + square] = 255
    method = Pretraining(Config(k=1, spread=0.3, filters=8), (1, side, side))
    optimizer, _ = method.optimizer(150)
    for group in optimizer.param_groups:
        group["lr"] = 3e-3
    for _ in range(150):
        source, target = (torch.from_numpy(images[rng.integers(0, 300, 16)]) for _ in range(2))
        optimizer.zero_grad()
        torch.autograd.backward(method.loss({"source": source, "image": target}))
        optimizer.step()
    encoder = method.encoder()
    points = encoder.keypoints(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())[:, 0]
    truth = (places[:, ::-1] + square / 2) / side * 2 - 1
    distance = np.linalg.norm(points.numpy() - truth, axis=1)
    alone = np.linalg.norm(truth, axis=1)  # of a keypoint that stays in the middle
    assert np.median(distance) < 0.5 * np.median(alone), np.median(distance)
