"""One kind of predictor against another, task by task: what a paper says of their scores.

The verdict rests on the 95 % interval of the mean difference over tasks (Student's t of the paired
differences, one fit a task), by the rule of `verdict.py`: reproduced where it excludes 0 on the
paper's side, not reproduced where it excludes 0 on the other or holds 0 but not the paper's
difference, under-powered where it holds both. Where the paper has scores the same within a margin:
reproduced where the interval lies within it, not reproduced where it lies outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.results.predicted import Predicted
from pipeline.results.verdict import FEWEST, NOT_REPRODUCED, REPRODUCED, UNDER_POWERED
from rl.statistics import student_interval

DIGITS = {"mae": 4, "f_max": 3}
NAMES = {"mae": "MAE", "f_max": "F"}


@dataclass(frozen=True)
class Claim:
    """What a paper says of one score: by how much it differs, or that it does not by more."""

    score: str  # "mae" or "f_max"
    size: float
    same: bool


def paired(
    found: Mapping[str, Sequence[Predicted]],
    labels: Sequence[str],
    than: Sequence[str],
    claims: Sequence[Claim],
) -> str:
    """`labels` less `than`, pair by pair, as a line of the ledger; "" where no pair is there.

    A pair is of scores on the same annotations.
    """
    pairs = [
        (one, other)
        for label, against in zip(labels, than, strict=True)
        for one in found.get(label, ())
        for other in found.get(against, ())
        if one.annotations == other.annotations
    ]
    told = [_told(pairs, claim) for claim in claims]
    if not all(told):
        return ""
    count = f"{len(pairs)} of {len(labels)}" if len(pairs) < len(labels) else str(len(pairs))
    updates = " and ".join(
        "/".join(map(str, sorted({one.updates or 0 for one in side})))
        for side in zip(*pairs, strict=True)
    )
    return f"{'; '.join(told)} ({count} tasks, one fit each, {updates} updates)"


def _told(pairs: Sequence[tuple[Predicted, Predicted]], claim: Claim) -> str:
    """What the pairs that have the score say of it; "" where none has."""
    scores = [(one.scores.get(claim.score), other.scores.get(claim.score)) for one, other in pairs]
    gaps = [one - other for one, other in scores if one is not None and other is not None]
    digits, name = DIGITS[claim.score], NAMES[claim.score]
    each = ", ".join(f"{gap:+.{digits}f}" for gap in gaps)
    if len(gaps) < FEWEST:
        return f"**{UNDER_POWERED}**: {name} {each}" if gaps else ""
    mean, (low, high) = np.mean(gaps), student_interval(np.array(gaps))
    interval = f"[{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"**{_word(low, high, claim)}**: {name} {mean:+.{digits}f} {interval}, by task {each}"


def _word(low: float, high: float, claim: Claim) -> str:
    if claim.same:
        if -claim.size <= low and high <= claim.size:
            return REPRODUCED
        outside = low > claim.size or high < -claim.size
        return NOT_REPRODUCED if outside else UNDER_POWERED
    if low > 0 or high < 0:
        return REPRODUCED if (low > 0) == (claim.size > 0) else NOT_REPRODUCED
    return UNDER_POWERED if low <= claim.size <= high else NOT_REPRODUCED
