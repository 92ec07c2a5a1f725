"""The evaluation episodes of a trained seed, and those that are its score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def score_of(checkpoints: Sequence[Any], random: Any) -> Any:
    """The episodes by which a seed is scored: its last checkpoint's. A failed seed is scored by the
    last checkpoint that it reached, or as the uniform random policy if it reached none.
    """
    return checkpoints[-1] if len(checkpoints) else random


@dataclass(frozen=True)
class Episodes:
    """One seed: the returns (or successes, 0 or 1) of its episodes at every checkpoint."""

    seed: int
    failed: str | None  # the reason why training failed
    steps: tuple[int, ...]  # of the checkpoints, ascending
    returns: tuple[Floats, ...]  # of each checkpoint's episodes
    random: Floats  # of the uniform random policy's episodes

    def at(self, step: int) -> Floats:
        """The episodes by which the seed is scored after `step` environment steps."""
        pairs = zip(self.steps, self.returns, strict=True)
        return np.asarray(score_of([r for s, r in pairs if s <= step], self.random))

    @property
    def final(self) -> Floats:
        """The episodes by which the seed is scored at the end of training."""
        return np.asarray(score_of(self.returns, self.random))

    @property
    def best(self) -> Floats:
        """The episodes of the checkpoint with the highest median (SPIRL's 400K protocol)."""
        return max(self.returns, key=lambda returns: float(np.median(returns)), default=self.random)


def read_episodes(
    value: Mapping[str, Any], random: Mapping[str, Any], of: str = "returns"
) -> Episodes:
    """A seed of evaluation.json; `of` is "returns" or "successes".

    Raises KeyError, TypeError or ValueError if it is malformed.
    """
    points = sorted(value["checkpoints"], key=lambda point: int(point["step"]))
    failed = value["failed"]
    return Episodes(
        seed=int(value["seed"]),
        failed=None if failed is None else str(failed),
        steps=tuple(int(point["step"]) for point in points),
        returns=tuple(numbers(point[of], of) for point in points),
        random=numbers(random[of], of),
    )


def numbers(values: object, of: str = "returns") -> Floats:
    """A list of finite numbers as an array; successes must be 0 or 1. Else raises ValueError."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{of} must be a list of finite numbers, at least one")
    if of == "successes" and not np.isin(array, (0, 1)).all():
        raise ValueError("successes must be 0 or 1")
    return array
