"""Linear probes: how well positions in a scene can be predicted from frozen features, linearly.

Alain and Bengio, "Understanding intermediate layers using linear classifier probes" (2016). Ridge
regression in closed form from features to positions (a point of the image, a point of the world).
Frames of an episode are similar, so the split is by whole episodes: a quarter of them are the test
set, a sixth of the others the validation set, which chooses the penalty, and the rest the training
set, or a few frames of it (`few`). Features are centred and not scaled.

R² is 1 - squared error / squared distance from the test frames' own mean, over a position's
coordinates together. So predicting the mean of the training frames scores 0 at best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.pictures import spread

TEST, VALIDATION = 1 / 4, 1 / 6  # shares of the episodes: of all, and of the others
PENALTIES = tuple(10.0 ** (half / 2) for half in range(-12, 5))  # x the features' total variance
BLOCK = 4_096  # columns of the features that are converted to double precision at a time

Floats = NDArray[np.float32] | NDArray[np.float64]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """The frames (n,) of each set: validation chooses the penalty."""

    train: Bools
    validation: Bools
    test: Bools


@dataclass(frozen=True)
class Score:
    """How well a position (K coordinates) is predicted in the test frames."""

    r2: float | None  # None where the position is constant
    error: float  # mean distance, in the position's own unit
    penalty: float | None  # one of PENALTIES; None for the mean


def split(episodes: NDArray[np.int64], seed: int) -> Split:
    """A random split by whole episodes; `episodes` (n,) has the number of each frame's episode.

    Raises ValueError for fewer than four episodes.
    """
    numbers = np.unique(episodes)
    if len(numbers) < 4:
        raise ValueError(f"episodes: {len(numbers)}, must be at least 4 for a split")
    order = np.random.default_rng(seed).permutation(numbers)
    test = max(1, round(TEST * len(numbers)))
    both = test + max(1, round(VALIDATION * (len(numbers) - test)))
    parts = order[both:], order[test:both], order[:test]
    return Split(*(np.isin(episodes, part) for part in parts))


def few(parts: Split, count: int) -> Split:
    """The same split with `count` evenly spread training frames, or all if there are fewer."""
    rows = np.flatnonzero(parts.train)
    train = np.zeros_like(parts.train)
    train[rows[spread(len(rows), count)]] = True
    return replace(parts, train=train)


class Probe:
    """Ridge regression on the rows of `features` (n, D), for any split and any target.

    The (n, n) table of the features' products, which no split changes, is computed once.
    """

    def __init__(self, features: Floats) -> None:
        if features.ndim != 2 or not np.isfinite(features).all():
            raise ValueError(f"features: {features.shape}, must be (n, D) and finite")
        self._products = torch.zeros(len(features), len(features), dtype=torch.float64)
        for begin in range(0, features.shape[1], BLOCK):
            block = torch.from_numpy(features[:, begin : begin + BLOCK].astype(np.float64))
            self._products.addmm_(block, block.T)

    def score(self, places: Mapping[str, Floats], parts: Split) -> dict[str, Score]:
        """The scores of every position (n, K), each with its own linear map and penalty."""
        centred = self._centred(parts.train)
        values, vectors = torch.linalg.eigh(centred[parts.train][:, parts.train])
        values = values.clamp(min=0)
        scale = float(values.mean()) or 1.0  # constant features predict the mean
        validation, test = (centred[p][:, parts.train] for p in (parts.validation, parts.test))
        scores = {}
        for name, place in places.items():
            mean = place[parts.train].mean(0, dtype=np.float64)
            targets = vectors.T @ torch.from_numpy(place[parts.train] - mean)

            def predict(rows: Tensor, penalty: float, targets: Tensor = targets) -> Doubles:
                weights = vectors @ (targets / (values + penalty * scale)[:, None])
                return np.asarray((rows @ weights).numpy())

            true = place[parts.validation] - mean
            errors = [np.square(predict(validation, p) - true).sum() for p in PENALTIES]
            best = PENALTIES[int(np.argmin(errors))]
            scores[name] = _score(predict(test, best) + mean, place[parts.test], best)
        return scores

    def _centred(self, train: Bools) -> Tensor:
        """The products of the features, centred by the mean of the training frames."""
        mean = self._products[:, train].mean(1)
        return self._products - mean[:, None] - mean[None, :] + mean[train].mean()


def score_mean(places: Mapping[str, Floats], parts: Split) -> dict[str, Score]:
    """The control without features: the mean of the training frames."""
    return {
        name: _score(
            np.broadcast_to(place[parts.train].mean(0, dtype=np.float64), place[parts.test].shape),
            place[parts.test],
            None,
        )
        for name, place in places.items()
    }


def _score(predicted: Doubles, true: Floats, penalty: float | None) -> Score:
    error = np.square(predicted - true).sum(1)
    total = float(np.square(true - true.mean(0, dtype=np.float64)).sum())
    r2 = 1 - float(error.sum()) / total if total > 0 else None
    return Score(r2, float(np.sqrt(error).mean()), penalty)


def episodes_of(columns: Sequence[NDArray[np.int32]]) -> NDArray[np.int64]:
    """The number of each frame's episode, counted over all streams, from stream and episode."""
    return np.unique(np.stack(columns, 1), axis=0, return_inverse=True)[1].astype(np.int64).ravel()
