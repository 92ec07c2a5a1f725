"""Claims and measured seeds brought together: our score for theirs, a verdict on each pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.results.claims import Claims, Score, Table, gap
from pipeline.results.measured import Seed
from pipeline.results.predicted import Predicted
from pipeline.results.probed import Pooled, Probed, with_pooled
from pipeline.results.verdict import (
    NOT_REPRODUCED,
    OWN_WORDS,
    SEEDS_ALONE,
    STATISTICS,
    UNDER_POWERED,
    WORDS,
    Gap,
    Verdict,
    judge,
)
from rl.statistics import bootstrap_interval, interquartile_mean, mean_interval, student_interval

NOT_RUN = "not run"


@dataclass(frozen=True)
class Measured:
    """All that was measured here."""

    policies: Mapping[str, Sequence[Seed]]
    probes: Mapping[str, Sequence[Probed]]  # by `row`, see probed.py
    saliency: Mapping[str, Sequence[Predicted]]  # by label

    def of(self, table: Table) -> Mapping[str, Sequence[Seed | Probed | Pooled]]:
        """What a table's rows are measured by."""
        if table.protocol == "probe":
            return with_pooled(self.probes, table.scores)
        return self.policies


@dataclass(frozen=True)
class Ours:
    """A policy's score over its seeds, with 95 % intervals."""

    mean: float
    mean_interval: tuple[float, float]
    iqm: float
    iqm_interval: tuple[float, float]
    seeds: int
    failed: int


@dataclass(frozen=True)
class Comparison:
    """Two scores that a paper sets against each other, and what was found of it here."""

    table: Table
    better: Score
    other: Score
    gap: Gap | None  # the paper's
    lacking: list[str]  # the methods that are not measured
    verdict: Verdict | None  # None while one is lacking
    seeds: int = 0  # of both
    fewest: int = 0  # of either
    failed: int = 0  # of these; they count with what they kept, or as the random policy

    @property
    def word(self) -> str:
        """The verdict's word, or that there is none yet."""
        if self.verdict is None:
            return NOT_RUN
        return OWN_WORDS[WORDS.index(self.verdict.word)] if self.table.own else self.verdict.word

    @property
    def seeds_needed(self) -> int | None:
        """A side, where there were fewer and the difference was not found."""
        if self.gap is None or self.word not in (NOT_REPRODUCED, UNDER_POWERED):
            return None
        return self.gap.seeds_needed if self.fewest < self.gap.seeds_needed else None


def ours(seeds: Sequence[Seed | Probed | Pooled], protocol: str) -> Ours:
    """The score of a policy's seeds, failed ones too; interquartile means are of all games."""
    games, statistic = [seed.games(protocol) for seed in seeds], STATISTICS[protocol]
    scores, alone = np.array([statistic(g) for g in games]), protocol in SEEDS_ALONE
    return Ours(
        mean=float(scores.mean()),
        mean_interval=student_interval(scores) if alone else mean_interval(games, statistic),
        iqm=interquartile_mean(np.concatenate(games)),
        iqm_interval=bootstrap_interval(games, interquartile_mean),
        seeds=len(seeds),
        failed=sum(seed.failed is not None for seed in seeds),
    )


def compare(claims: Claims, measured: Measured) -> list[Comparison]:
    """Every comparison of a paper, in its order."""
    return [
        _compare(table, better, other, measured)
        for table in claims.tables
        for better, other in table.comparisons
    ]


def count(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """Verdict -> how many comparisons have it, all of them a paper's or all our own."""
    found = Counter(one.word for one in comparisons)
    known = OWN_WORDS if any(one.table.own for one in comparisons) else WORDS
    return {word: found[word] for word in (*known, NOT_RUN)}


def _compare(table: Table, better: Score, other: Score, measured: Measured) -> Comparison:
    ahead = gap(better, other)
    kept = measured.of(table)
    lacking = [score.method for score in (better, other) if score.policy not in kept]
    if lacking:
        return Comparison(table, better, other, ahead, lacking, None)
    sides = [[s.games(table.protocol) for s in kept[x.policy]] for x in (better, other)]
    found = judge(sides[0], sides[1], ahead, table.protocol)
    seeds = [seed for x in (better, other) for seed in kept[x.policy]]
    failed = sum(seed.failed is not None for seed in seeds)
    fewest = min(len(side) for side in sides)
    return Comparison(table, better, other, ahead, [], found, len(seeds), fewest, failed)
