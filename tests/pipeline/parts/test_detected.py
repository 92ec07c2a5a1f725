"""The scores of keypoints: an informed source, an uninformed one, and the controls."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.parts.detected import detected, keypoints_of, on_frame
from pretrain.encoders import transporter
from pretrain.frozen import EncoderMap
from pretrain.saliency import random


def test_an_informed_source_detects_everything() -> None:
    """Objects at cells' centres, and a map that is bright there; on other frames the same map
    scores like chance.
    """
    rng = np.random.default_rng(0)
    images = np.zeros((60, 84, 84, 1), np.uint8)
    corners = [(row, column) for row in range(0, 7, 2) for column in range(0, 7, 2)]
    clicks = []
    for image in images:
        chosen = [corners[i] for i in rng.choice(len(corners), 4, replace=False)]
        for row, column in chosen:
            image[12 * row : 12 * row + 12, 12 * column : 12 * column + 12] = 255
        clicks.append(np.array([[(c + 0.5) / 7, (r + 0.5) / 7] for r, c in chosen]) * 400)

    def knows(image: Tensor) -> Tensor:
        return image.float() / 255

    report = detected(knows, images, on_frame(clicks), k=7)
    assert report["source"]["recall"] == report["source"]["precision"] == report["ceiling"] == 1
    assert report["source"]["curve"]["0.05"] == [240, 240, 240]
    for name in ("shuffled", "uniform", "random", "centre"):
        assert report[name]["recall"] < 0.65, name
    assert report["random"]["keypoints_per_frame"] == 7 == report["k"]
    assert report["frames"] == 60 and report["objects_per_frame"] == 4
    few = detected(knows, images, on_frame(clicks), k=2)
    assert few["source"]["recall"] == few["ceiling"] == 0.5 and few["source"]["precision"] == 1


def test_learned_keypoints_are_scored_unchanged() -> None:
    shape = (1, 84, 84)
    encoder = transporter.Pretraining(transporter.Config(filters=4), shape).encoder()
    images = np.random.default_rng(0).integers(0, 256, (3, 84, 84, 1), np.uint8)
    points = keypoints_of(EncoderMap(encoder), images, 5)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    np.testing.assert_allclose(points, encoder.keypoints(batch)[:, :5].numpy(), atol=1e-6)
    source = random.Saliency(random.Config(cells=7), shape)
    assert all(1 <= len(each) <= 5 for each in keypoints_of(source, images, 5))
