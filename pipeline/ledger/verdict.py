"""Whether a difference that a paper reports was found here too.

The interval is that of the difference of two methods' scores, 95 %, over seeds and their games.

- reproduced: it excludes 0, on the paper's side.
- not reproduced: it excludes 0 on the other side, or holds 0 but not the difference in the paper.
- under-powered: it holds both, so nothing follows; with how many seeds it might is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl.statistics import difference_interval

Games = NDArray[np.float64]

# Standard normal quantiles: a two-sided test at 5 % that finds a true difference in 80 % of cases.
SIGNIFICANT, FOUND = 1.960, 0.842
FEWEST = 3  # seeds a side; fewer say next to nothing of how seeds differ


@dataclass(frozen=True)
class Verdict:
    """The word, and the interval that it rests on."""

    word: str
    difference: float
    low: float
    high: float
    seeds_needed: int | None = None  # a side; for under-powered ones


def judge(
    better: Sequence[Games],
    other: Sequence[Games],
    gap: float,
    statistic: Callable[[Games], float],
    deviations: tuple[float, float],
) -> Verdict:
    """Compare two methods' seeds with a paper that sees the first `gap` > 0 above the second.

    `deviations` are the paper's, over its trials: they stand in for our own, which few seeds tell
    badly, in the number of seeds needed.
    """
    means = [float(np.mean([statistic(games) for games in side])) for side in (better, other)]
    difference = means[0] - means[1]
    needed = seeds_needed(gap, deviations)
    if min(len(better), len(other)) < FEWEST:
        return Verdict("under-powered", difference, math.nan, math.nan, needed)
    low, high = difference_interval(better, other, statistic)
    if low > 0:
        return Verdict("reproduced", difference, low, high)
    if high < 0 or high < gap:
        return Verdict("not reproduced", difference, low, high)
    return Verdict("under-powered", difference, low, high, needed)


def seeds_needed(gap: float, deviations: tuple[float, float]) -> int:
    """Seeds a side that find a true difference of `gap` in four of five cases (normal theory)."""
    variance = deviations[0] ** 2 + deviations[1] ** 2
    return max(FEWEST, math.ceil((SIGNIFICANT + FOUND) ** 2 * variance / gap**2))
