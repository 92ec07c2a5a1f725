"""Objects found by a saliency source's keypoints, beside controls that see nothing (Wu et al. 2021,
Table 1).

A source that learns keypoints of its own is judged by them; of any other, keypoints are taken from
its maps. Every row has the same number of keypoints a frame at most, and the same objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.annotation.maps import CANVAS
from pretrain.encoder import Encoder, SaliencySource
from pretrain.frozen import EncoderMap
from pretrain.metrics.keypoints import (
    CELLS,
    EPSILON,
    Points,
    ceiling,
    central_cells,
    detection,
    keypoints,
    random_cells,
    uniform_grid,
)

BATCH = 32  # frames that go through the source together


def on_frame(clicks: Sequence[NDArray[np.float64]]) -> list[Points]:
    """Annotated points on the canvas, (n, 2) a frame, as places in -1 to 1."""
    return [points / CANVAS * 2 - 1 for points in clicks]


@torch.no_grad()
def keypoints_of(
    source: SaliencySource,
    images: NDArray[np.uint8],
    k: int,
    cells: tuple[int, int] = CELLS,
    device: str = "cpu",
) -> list[Points]:
    """A source's keypoints on images (N, H, W, C), at most `k` each."""
    encoder = source.encoder if isinstance(source, EncoderMap) else None
    points: list[Points] = []
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2)
        batch = batch.contiguous().to(device)
        own = encoder.keypoints(batch) if isinstance(encoder, Encoder) else None
        if own is None:
            points += keypoints(source(batch), k, cells)
        else:
            points += list(own[:, :k].double().cpu().numpy())
    return points


def detected(
    source: SaliencySource,
    images: NDArray[np.uint8],
    objects: Sequence[Points],
    *,
    k: int,
    cells: tuple[int, int] = CELLS,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Recall and precision at each ε, of the source and of the controls: a uniform grid, random
    cells, those nearest the centre, and the source's own keypoints of other frames (`shuffled`).

    `ceiling` is the recall that `k` keypoints cannot exceed. Scores at ε = 0.2 stand alone too.
    """
    rng = np.random.default_rng(seed)
    points = keypoints_of(source, images, k, cells, device)
    rows = {
        "source": points,
        "shuffled": [points[i] for i in rng.permutation(len(points))],
        "uniform": [uniform_grid(k)] * len(points),
        "random": [random_cells(k, rng, cells) for _ in points],
        "centre": [central_cells(k, cells)] * len(points),
    }
    report: dict[str, Any] = {
        "frames": len(points),
        "k": k,
        "cells": list(cells),
        "ceiling": ceiling(objects, k),
        "objects_per_frame": float(np.mean([len(o) for o in objects])),
    }
    for name, each in rows.items():
        curve = detection(each, objects)
        at = next(score for score in curve if score.epsilon == EPSILON)
        report[name] = {
            "recall": at.recall,
            "precision": at.precision if at.keypoints else None,
            "keypoints_per_frame": at.keypoints / len(points),
            "curve": {f"{s.epsilon:.2f}": [s.hits, s.objects, s.keypoints] for s in curve},
        }
    return report
