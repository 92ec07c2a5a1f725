"""Whether a paper's difference is reproduced, by the 95 % interval of ours.

reproduced: the interval excludes 0 on the paper's side. not reproduced: it excludes 0 on the other
side, or contains 0 but not the paper's difference. under-powered: it contains both, or 0 if the
paper has no number, or a side has fewer than three seeds. If the paper claims no difference within
a margin: reproduced if the interval is inside, not reproduced if it is outside, else under-powered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from rl.statistics import difference_interval, student_interval, welch_interval

Sample = NDArray[np.float64]  # a seed's episodes, or a probe's splits
Statistic = Callable[[Sample], float]

# Scores of exams: of objects by keypoints, of points as fixations, of occlusion.
EXAMS = ("recall", "precision", "nss", "shuffled_auc", "occlusion_kl")
# A table's protocol -> the statistic that makes a seed's score of its sample.
PROTOCOLS: dict[str, Statistic] = {
    **dict.fromkeys(("mean", "success", "probe", *EXAMS), lambda sample: float(sample.mean())),
    "median": lambda sample: float(np.median(sample)),
}
WHOLE = {*EXAMS, "probe"}  # of samples that share episodes: not resampled
WORDS = REPRODUCED, NOT_REPRODUCED, UNDER_POWERED = "reproduced", "not reproduced", "under-powered"
OWN_WORDS = "holds", "does not hold", UNDER_POWERED  # of our own questions
FEWEST = 3  # seeds a side
# For a two-sided test at 5 % and a power of 80 %, in standard errors.
SIGNIFICANT, POWER = NormalDist().inv_cdf(0.975), NormalDist().inv_cdf(0.8)


@dataclass(frozen=True)
class Gap:
    """A paper's difference of two methods, and their standard deviations over its trials."""

    size: float
    deviations: tuple[float, float]

    @property
    def seeds_needed(self) -> int:
        """Seeds a side to detect it at 80 % power (normal theory, the paper's deviations)."""
        variance = sum(deviation**2 for deviation in self.deviations)
        return max(FEWEST, math.ceil((SIGNIFICANT + POWER) ** 2 * variance / self.size**2))


@dataclass(frozen=True)
class Verdict:
    """The word, the difference and its 95 % interval, which is NaN with too few seeds."""

    word: str
    difference: float
    low: float = math.nan
    high: float = math.nan
    detectable: float = math.nan  # minimum detectable difference at 80 % power


def judge(
    better: Sequence[Sample], other: Sequence[Sample], gap: Gap | None, protocol: str
) -> Verdict:
    """Compare the seeds of two methods, where the first is ahead in the paper by `gap`.

    Intervals are bootstraps over seeds and their episodes; for probes and exams they are Welch's,
    over seeds.
    """
    statistic = PROTOCOLS[protocol]
    scores = [np.array([statistic(sample) for sample in side]) for side in (better, other)]
    difference = float(scores[0].mean() - scores[1].mean())
    if min(map(len, scores)) < FEWEST:
        return Verdict(UNDER_POWERED, difference)
    error = math.sqrt(sum(side.var(ddof=1) / len(side) for side in scores))
    if protocol in WHOLE:
        low, high = welch_interval(*scores)
        detectable = (high - low) / 2 + POWER * error
    else:
        low, high = difference_interval(better, other, statistic)
        detectable = (SIGNIFICANT + POWER) * error
    word = _word(low, high, gap.size if gap else math.inf)
    return Verdict(word, difference, low, high, detectable)


def judge_pairs(differences: Sequence[float], size: float, *, same: bool) -> Verdict:
    """The verdict on paired differences by Student's t; with `same`, `size` is the paper's margin
    of no difference.
    """
    values = np.array(differences)
    mean = float(values.mean())
    if len(values) < FEWEST:
        return Verdict(UNDER_POWERED, mean)
    low, high = student_interval(values)
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    word = _word(low, high, size) if size > 0 else _word(-high, -low, -size)
    if same:
        outside = low > size or high < -size
        inside = -size <= low and high <= size
        word = REPRODUCED if inside else NOT_REPRODUCED if outside else UNDER_POWERED
    return Verdict(word, mean, low, high, (high - low) / 2 + POWER * error)


def _word(low: float, high: float, size: float) -> str:
    """The verdict on an interval whose positive side is the paper's; `size` is inf if unknown."""
    if low > 0:
        return REPRODUCED
    return NOT_REPRODUCED if high < 0 or (high < size < math.inf) else UNDER_POWERED
