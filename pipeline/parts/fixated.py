"""Maps against the annotated points of each frame, as fixations (pretrain/metrics/fixations.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.annotation.maps import CANVAS, Clicks
from pipeline.parts.maps import FloatMaps
from pipeline.parts.scores import CENTRE
from pretrain.metrics.fixations import SIZE, averages, fixation_map, frame_scores, resize
from pretrain.modules.maps import centre_prior

Fixations = NDArray[np.int64]  # SIZE
Scores = Mapping[str, tuple[float | None, int]]  # metric -> mean, number of frames that have it


@dataclass(frozen=True)
class Fixated:
    """Points of annotated frames, (n, 2) on the canvas each, and the frames' streams (M,).

    Shuffled AUC compares with the points of all other annotated frames of the stream, information
    gain with the centre prior.
    """

    points: Sequence[Clicks]
    streams: NDArray[np.int32]

    def scores(self, maps: FloatMaps) -> Scores:
        """Each metric of maps (M, H, W): its mean over the frames where it is defined, and their
        number; no mean without any.
        """
        prior = centre_prior(*SIZE, CENTRE).numpy()
        frames = []
        for index, saliency in enumerate(maps):
            fixations = self._map(index)
            others = self._totals[int(self.streams[index])] - fixations
            frames.append(frame_scores(resize(saliency[None], *SIZE)[0], fixations, others, prior))
        return {
            name: (one.mean if one.defined else None, one.defined)
            for name, one in averages(frames).items()
        }

    @cached_property
    def _totals(self) -> dict[int, Fixations]:
        """The points of all frames of each stream."""
        totals = {stream: np.zeros(SIZE, np.int64) for stream in np.unique(self.streams).tolist()}
        for index, stream in enumerate(self.streams.tolist()):
            totals[stream] += self._map(index)
        return totals

    def _map(self, index: int) -> Fixations:
        """A frame's points by pixel; those at the canvas's far border are in the last one."""
        size = np.array(SIZE[::-1], np.float64)
        return fixation_map(
            np.minimum(self.points[index] * size / CANVAS, np.nextafter(size, 0)), *SIZE
        )


def read_scores(value: Mapping[str, Any], frames: int) -> Scores:
    """Scores from JSON. Raises ValueError, TypeError or LookupError for anything else."""
    scores: dict[str, tuple[float | None, int]] = {}
    for name, (mean, defined) in value.items():
        numbers = (defined,) if mean is None else (defined, mean)
        if not all(type(one) in (int, float) and np.isfinite(one) for one in numbers):
            raise ValueError(f"{name}: {mean!r} of {defined!r} frames")
        if not 0 <= defined <= frames or (mean is None) != (defined == 0):
            raise ValueError(f"{name}: {mean!r} of {defined!r} frames")
        scores[str(name)] = (None if mean is None else float(mean), int(defined))
    return scores
