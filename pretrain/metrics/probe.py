"""Linear probes: how much of what is in a scene can be read off frozen features by a linear map.

Alain and Bengio, "Understanding intermediate layers using linear classifier probes" (2016). Ridge
regression in closed form from features to places (a point of the image, a point of the world).
Frames of an episode resemble each other, so whole episodes are held out, never single frames: a
quarter of them to score, of the rest a sixth to choose the penalty, and the map is fitted on what
remains or on a few frames of it (`few`). Features are centred and not scaled.

R² is 1 - squared error / squared distance from the held-out frames' own mean, over a place's
coordinates together, so that predicting the mean of the training frames scores 0 at best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.pictures import spread

SCORED, CHOOSES = 1 / 4, 1 / 6  # shares of the episodes: of all, and of those that are left
PENALTIES = tuple(10.0 ** (half / 2) for half in range(-12, 5))  # x the features' total variance
BLOCK = 4_096  # columns of the features that are in double precision at a time

Floats = NDArray[np.float32] | NDArray[np.float64]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """Which frames (n,) are fitted on, which choose the penalty, which are scored."""

    fitted: Bools
    chooses: Bools
    scored: Bools


@dataclass(frozen=True)
class Score:
    """How well a place (K coordinates) is read off the held-out frames."""

    r2: float | None  # None where it is the same in all of them
    error: float  # mean distance, in the place's own unit
    penalty: float | None  # as in PENALTIES; None where nothing was fitted


def split(episodes: NDArray[np.int64], seed: int) -> Split:
    """Share whole episodes out at random; `episodes` (n,) says which one each frame is of.

    Raises ValueError for fewer than four episodes.
    """
    known = np.unique(episodes)
    if len(known) < 4:
        raise ValueError(f"episodes: {len(known)}, must be at least 4 to hold some out")
    shuffled = np.random.default_rng(seed).permutation(known)
    scored = max(1, round(SCORED * len(known)))
    chooses = scored + max(1, round(CHOOSES * (len(known) - scored)))
    parts = shuffled[chooses:], shuffled[scored:chooses], shuffled[:scored]
    return Split(*(np.isin(episodes, part) for part in parts))


def few(parts: Split, count: int) -> Split:
    """The same, fitted on `count` frames alone, evenly spread, or on all where there are fewer."""
    rows = np.flatnonzero(parts.fitted)
    fitted = np.zeros_like(parts.fitted)
    fitted[rows[spread(len(rows), count)]] = True
    return replace(parts, fitted=fitted)


class Probe:
    """Ridge regression on the rows of `features` (n, D), for any split and any target.

    What depends on the features alone, the (n, n) table of their products, is computed once.
    """

    def __init__(self, features: Floats) -> None:
        if features.ndim != 2 or not np.isfinite(features).all():
            raise ValueError(f"features: {features.shape}, must be (n, D) and finite")
        self._products = torch.zeros(len(features), len(features), dtype=torch.float64)
        for begin in range(0, features.shape[1], BLOCK):
            block = torch.from_numpy(features[:, begin : begin + BLOCK].astype(np.float64))
            self._products.addmm_(block, block.T)

    def score(self, places: Mapping[str, Floats], parts: Split) -> dict[str, Score]:
        """Every place (n, K) read off by a map and a penalty of its own."""
        centred = self._centred(parts.fitted)
        values, vectors = torch.linalg.eigh(centred[parts.fitted][:, parts.fitted])
        values = values.clamp(min=0)
        scale = float(values.mean()) or 1.0  # features that are all alike tell the mean
        chooses, scored = (centred[p][:, parts.fitted] for p in (parts.chooses, parts.scored))
        scores = {}
        for name, place in places.items():
            mean = place[parts.fitted].mean(0, dtype=np.float64)
            wanted = vectors.T @ torch.from_numpy(place[parts.fitted] - mean)

            def read(rows: Tensor, penalty: float, wanted: Tensor = wanted) -> Doubles:
                weights = vectors @ (wanted / (values + penalty * scale)[:, None])
                return np.asarray((rows @ weights).numpy())

            true = place[parts.chooses] - mean
            errors = [np.square(read(chooses, p) - true).sum() for p in PENALTIES]
            best = PENALTIES[int(np.argmin(errors))]
            scores[name] = _score(read(scored, best) + mean, place[parts.scored], best)
        return scores

    def _centred(self, fitted: Bools) -> Tensor:
        """The products of the features less the mean of the frames that are fitted on."""
        mean = self._products[:, fitted].mean(1)
        return self._products - mean[:, None] - mean[None, :] + mean[fitted].mean()


def score_mean(places: Mapping[str, Floats], parts: Split) -> dict[str, Score]:
    """The control without features: always the mean of the frames that are fitted on."""
    return {
        name: _score(
            np.broadcast_to(
                place[parts.fitted].mean(0, dtype=np.float64), place[parts.scored].shape
            ),
            place[parts.scored],
            None,
        )
        for name, place in places.items()
    }


def _score(predicted: Doubles, true: Floats, penalty: float | None) -> Score:
    wrong = np.square(predicted - true).sum(1)
    around = float(np.square(true - true.mean(0, dtype=np.float64)).sum())
    r2 = 1 - float(wrong.sum()) / around if around > 0 else None
    return Score(r2, float(np.sqrt(wrong).mean()), penalty)


def episodes_of(columns: Sequence[NDArray[np.int32]]) -> NDArray[np.int64]:
    """One number an episode, from the columns that together name it: stream and episode."""
    return np.unique(np.stack(columns, 1), axis=0, return_inverse=True)[1].astype(np.int64).ravel()
