"""The scores of keypoints: an informed source, an uninformed one, and the controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.parts.controls import control_points, others
from pipeline.parts.detection import detection_scores, on_frame
from pretrain.metrics.keypoints import Points, ceiling, keypoints


@pytest.fixture
def spots() -> tuple[torch.Tensor, list[Points]]:
    """Maps (60, 1, 84, 84) that are bright in four cells, and these cells' centres as objects."""
    rng = np.random.default_rng(0)
    maps, clicks = torch.zeros(60, 1, 84, 84), []
    corners = [(row, column) for row in range(0, 7, 2) for column in range(0, 7, 2)]
    for one in maps:
        chosen = [corners[i] for i in rng.choice(len(corners), 4, replace=False)]
        for row, column in chosen:
            one[0, 12 * row : 12 * row + 12, 12 * column : 12 * column + 12] = 1
        clicks.append(np.array([[(c + 0.5) / 7, (r + 0.5) / 7] for r, c in chosen]) * 400)
    return maps, on_frame(clicks)


def test_an_informed_source_detects_everything(spots: tuple[torch.Tensor, list[Points]]) -> None:
    maps, objects = spots
    scores = detection_scores(keypoints(maps, 7), objects)
    assert scores["recall"] == scores["precision"] == ceiling(objects, 7) == 1
    assert scores["curve"]["0.05"] == [240, 240, 240] and scores["keypoints_per_frame"] == 4
    few = detection_scores(keypoints(maps, 2), objects)
    assert few["recall"] == ceiling(objects, 2) == 0.5 and few["precision"] == 1


def test_uninformed_keypoints_detect_little(spots: tuple[torch.Tensor, list[Points]]) -> None:
    """Neither a source's keypoints of other frames, nor controls; the all-zero map has none."""
    maps, objects = spots
    points = keypoints(maps, 7)
    rows = control_points(7, len(maps), maps[:, 0].numpy())
    motion = detection_scores(rows.pop("motion"), objects)
    assert motion["recall"] == 1  # here it is the source itself
    rows["shuffled"] = [points[i] for i in others(len(points)).tolist()]
    for name, row in rows.items():
        assert detection_scores(row, objects)["recall"] < 0.65, name
    assert detection_scores(rows["random"], objects)["keypoints_per_frame"] == 7
    nothing = detection_scores(rows["zero"], objects)
    assert nothing["recall"] == 0 and nothing["precision"] is None
    assert control_points(7, 3, None).keys() == {"zero", "centre", "uniform", "random"}
