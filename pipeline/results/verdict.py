"""Whether a difference that a paper reports was found here too.

The interval is that of the difference of two methods' scores, 95 %, over seeds and their games; of
probes over seeds alone, by Welch's t: ways to hold out some of the same episodes are no sample.

- reproduced: it excludes 0, on the paper's side.
- not reproduced: it excludes 0 on the other side, or holds 0 but not the difference in the paper.
- under-powered: it holds both, so nothing follows; with how many seeds it might is said. So is a
  comparison with fewer than three seeds on a side, whatever they scored, and one that holds 0 where
  the paper gives no number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl.statistics import difference_interval, welch_interval

Games = NDArray[np.float64]
Statistic = Callable[[Games], float]  # a seed's games -> its score

# By a table's protocol: how a seed's games become its score.
STATISTICS: dict[str, Statistic] = {
    "mean": lambda games: float(games.mean()),
    "median": lambda games: float(np.median(games)),
    "success": lambda games: float(games.mean()),
    "probe": lambda splits: float(splits.mean()),
}
SEEDS_ALONE = ("probe",)  # protocols whose "games" are no sample of any
WORDS = REPRODUCED, NOT_REPRODUCED, UNDER_POWERED = "reproduced", "not reproduced", "under-powered"
# The same of a question of our own, which no paper has answered.
OWN_WORDS = "holds", "does not hold", UNDER_POWERED
# Standard normal quantiles: a two-sided test at 5 % that finds a true difference in 80 % of cases.
SIGNIFICANT, FOUND = 1.960, 0.842
FEWEST = 3  # seeds a side; fewer say next to nothing of how seeds differ


@dataclass(frozen=True)
class Gap:
    """By how much a paper's better method is ahead, > 0, and both methods' deviations there."""

    size: float
    deviations: tuple[float, float]

    @property
    def seeds_needed(self) -> int:
        """Seeds a side that find such a gap in four of five cases (normal theory).

        The paper's deviations stand in for our own, which few seeds tell badly.
        """
        variance = self.deviations[0] ** 2 + self.deviations[1] ** 2
        return max(FEWEST, math.ceil((SIGNIFICANT + FOUND) ** 2 * variance / self.size**2))


@dataclass(frozen=True)
class Verdict:
    """The word, and the interval that it rests on; NaN where there are too few seeds for one.

    `detectable` is the difference that as many seeds, as far apart as these are, would find in four
    of five cases (normal theory; so few tell their own deviation badly).
    """

    word: str
    difference: float
    low: float
    high: float
    detectable: float


def judge(
    better: Sequence[Games], other: Sequence[Games], gap: Gap | None, protocol: str
) -> Verdict:
    """Compare the seeds of two methods, the one first that the paper puts forward.

    `gap` is None where the paper says which is better but not by how much.
    """
    statistic = STATISTICS[protocol]
    scores = [np.array([statistic(games) for games in side]) for side in (better, other)]
    difference = float(scores[0].mean() - scores[1].mean())
    if min(len(better), len(other)) < FEWEST:
        return Verdict(UNDER_POWERED, difference, math.nan, math.nan, math.nan)
    error = math.sqrt(sum(side.var(ddof=1) / len(side) for side in scores))
    detectable = (SIGNIFICANT + FOUND) * error
    if protocol in SEEDS_ALONE:
        low, high = welch_interval(*scores)
        detectable = (high - low) / 2 + FOUND * error
    else:
        low, high = difference_interval(better, other, statistic)
    if low > 0:
        word = REPRODUCED
    elif high < 0 or (gap is not None and high < gap.size):
        word = NOT_REPRODUCED
    else:
        word = UNDER_POWERED
    return Verdict(word, difference, low, high, detectable)
