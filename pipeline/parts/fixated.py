"""Maps against the annotated points of each frame, as fixations (pretrain/metrics/fixations.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.annotation.maps import CANVAS, Clicks
from pipeline.parts.maps import FloatMaps
from pipeline.parts.scores import CENTRE
from pretrain.metrics.fixations import SIZE, Average, averages, fixation_map, frame_scores, resize
from pretrain.modules.maps import centre_prior

Fixations = NDArray[np.int64]  # SIZE


class Score(NamedTuple):
    """A metric's mean over the frames for which it is defined, and their number; and its mean in
    each recording, of those where it is defined for some frame. A recording is a stream.
    """

    mean: float | None  # None if it is defined for no frame
    defined: int
    recordings: Sequence[float] = ()  # none of an exam by earlier code


Scores = Mapping[str, Score]  # by metric


@dataclass(frozen=True)
class Fixated:
    """Points of annotated frames, (n, 2) on the canvas each, and the frames' streams (M,).

    Shuffled AUC compares with the points of all other annotated frames of the stream, information
    gain with the centre prior.
    """

    points: Sequence[Clicks]
    streams: NDArray[np.int32]

    def scores(self, maps: FloatMaps) -> Scores:
        """Each metric of maps (M, H, W)."""
        prior = centre_prior(*SIZE, CENTRE).numpy()
        frames = []
        for index, saliency in enumerate(maps):
            fixations = self._map(index)
            others = self._totals[int(self.streams[index])] - fixations
            frames.append(frame_scores(resize(saliency[None], *SIZE)[0], fixations, others, prior))
        return averaged(frames, self.streams)

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


def averaged(frames: Sequence[Mapping[str, float]], streams: NDArray[np.int32]) -> Scores:
    """Each metric of frames (M,), NaN where it is not defined, over them and in each stream."""
    rows = [np.flatnonzero(streams == stream).tolist() for stream in np.unique(streams)]
    parts = [averages([frames[index] for index in some]) for some in rows]
    return {
        name: _score(one, [part[name] for part in parts]) for name, one in averages(frames).items()
    }


def _score(whole: Average, parts: Sequence[Average]) -> Score:
    mean = whole.mean if whole.defined else None
    return Score(mean, whole.defined, [part.mean for part in parts if part.defined])


def read_scores(value: Mapping[str, Any], frames: int) -> Scores:
    """Scores from JSON. Raises ValueError, TypeError or LookupError for anything else."""
    scores: dict[str, Score] = {}
    for name, (mean, defined, *rest) in value.items():
        (recordings,) = rest or [()]
        numbers = [defined, *recordings, *([] if mean is None else [mean])]
        if not all(type(one) in (int, float) and np.isfinite(one) for one in numbers):
            raise ValueError(f"{name}: {mean!r} of {defined!r} frames")
        if not len(recordings) <= defined <= frames or (mean is None) != (defined == 0):
            raise ValueError(f"{name}: {mean!r} of {defined!r} frames")
        means = tuple(map(float, recordings))
        scores[str(name)] = Score(None if mean is None else float(mean), int(defined), means)
    return scores
