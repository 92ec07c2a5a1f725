"""Objects found by a saliency source's keypoints (Wu et al. 2021, Table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.annotation.maps import CANVAS
from pretrain.metrics.keypoints import EPSILON, Points, detection


def on_frame(clicks: Sequence[NDArray[np.float64]]) -> list[Points]:
    """Annotated points on the canvas, (n, 2) a frame, as places in -1 to 1."""
    return [points / CANVAS * 2 - 1 for points in clicks]


def detection_scores(points: Sequence[Points], objects: Sequence[Points]) -> dict[str, Any]:
    """Recall and precision at ε = 0.2, keypoints a frame, and at each ε the hits, objects and
    keypoints of all frames; no precision where there are no keypoints.
    """
    curve = detection(points, objects)
    at = next(score for score in curve if score.epsilon == EPSILON)
    return {
        "recall": at.recall,
        "precision": at.precision if at.keypoints else None,
        "keypoints_per_frame": at.keypoints / len(points),
        "curve": {f"{s.epsilon:.2f}": [s.hits, s.objects, s.keypoints] for s in curve},
    }
