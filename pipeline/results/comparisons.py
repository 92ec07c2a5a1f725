"""Claims against records: our score for each cell of a table, a verdict on each comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from datasets.errors import FoveaError
from pipeline.parts.episodes import Episodes, read_episodes
from pipeline.results.claims import Cell, Claims, Sources, Table, gap
from pipeline.results.data import Score
from pipeline.results.exams import score_of
from pipeline.results.record import Record
from pipeline.results.verdict import (
    EXAMS,
    NOT_REPRODUCED,
    OWN_WORDS,
    PROTOCOLS,
    UNDER_POWERED,
    WHOLE,
    WORDS,
    Gap,
    Sample,
    Verdict,
    judge,
    judge_pairs,
)
from rl.statistics import bootstrap_interval, interquartile_mean, mean_interval, student_interval

NOT_RUN = "not run"
Records = Mapping[str, Sequence[Record]]  # by label


@dataclass(frozen=True)
class Comparison:
    """Two cells that a paper compares, and their measurements here."""

    table: Table
    better: Cell
    other: Cell
    gap: Gap | None  # the paper's
    missing: tuple[str, ...]  # methods that are not measured
    verdict: Verdict | None  # None if one is missing
    seeds: tuple[int, int] = (0, 0)
    failed: int = 0  # of both sides' seeds

    @property
    def word(self) -> str:
        """The verdict's word, or "not run"."""
        if self.verdict is None:
            return NOT_RUN
        return OWN_WORDS[WORDS.index(self.verdict.word)] if self.table.own else self.verdict.word

    @property
    def seeds_needed(self) -> int | None:
        """Seeds a side that detect the paper's difference, if there are fewer and none is found."""
        if self.gap is None or self.word not in (NOT_REPRODUCED, UNDER_POWERED):
            return None
        return self.gap.seeds_needed if min(self.seeds) < self.gap.seeds_needed else None


def samples(cell: Cell, protocol: str, records: Records) -> list[Sample]:
    """A cell's samples, one a seed; empty if it is not measured.

    A task of several names is their mean, seed by seed. Raises FoveaError for probes on different
    frames.
    """
    if protocol in EXAMS:
        exams = _exams(cell, records)
        scores = [score_of(record.scores, cell.reading, protocol)[0] for record in exams]
        return [np.array([score]) for score in scores if score is not None]
    if protocol != "probe":
        seeds = [episodes(record, protocol) for record in _seeds(cell, records)]
        return [seed.best if protocol == "median" else seed.final for seed in seeds]
    parts = [
        {seed: record for seed, name in enumerate(names) for record in _probes(name, cell, records)}
        for names in cell.names
    ]
    if any(len({(r.on, r.scores["rows"]) for r in part.values()}) > 1 for part in parts):
        raise FoveaError(f"{cell.method} on {cell.task}: its seeds were probed on different frames")
    common = sorted(set(parts[0]).intersection(*parts[1:])) if parts else []
    values = [[_splits(part[seed], cell) for part in parts] for seed in common]
    return [np.asarray(np.mean(value, axis=0)) for value in values]


def failed(cell: Cell, records: Records) -> int:
    """The number of a cell's failed seeds; `pipeline.parts.episodes` defines their score."""
    return sum(record.scores.get("failed") is not None for record in _seeds(cell, records))


def _seeds(cell: Cell, records: Records) -> Iterator[Record]:
    for name, *_ in cell.names:
        yield from (one for one in records.get(f"policies/{name}", ()) if one.evaluated)


def _exams(cell: Cell, records: Records) -> Iterator[Record]:
    """The records of a cell's exams, of every seed of a policy."""
    for exam in filter(None, sum(cell.names, ())):
        by, truth, k = exam.split()
        some = records.get(by, ())
        yield from (one for one in some if (one.on, str(one.keypoints)) == (truth, k))


def _probes(name: str, cell: Cell, records: Records) -> list[Record]:
    some = records.get(f"encoders/{name}", ())
    return [record for record in some if cell.reading in record.scores.get("readings", {})]


def episodes(record: Record, protocol: str) -> Episodes:
    """A seed's episodes. Raises FoveaError if its protocol needs successes and it has none."""
    of = "successes" if protocol == "success" else "returns"
    try:
        return read_episodes({"seed": record.seed} | record.scores, record.scores["random"], of)
    except KeyError as error:
        raise FoveaError(f"{record.path}: has no {of}, which its claim needs") from error


def _splits(record: Record, cell: Cell) -> Sample:
    """R² of each split: the mean over those of the cell's image points that are not constant."""
    places = record.scores["readings"][cell.reading]
    values = [places[f"image {point}"]["r2"] for point in cell.points]
    return np.asarray(np.mean([one for one in values if None not in one], axis=0))


def ours(cell: Cell, protocol: str, records: Records) -> tuple[Score, int] | None:
    """A cell's score and number of seeds; the interquartile mean is over all its episodes."""
    seeds, statistic = samples(cell, protocol, records), PROTOCOLS[protocol]
    if not seeds:
        return None
    scores = np.array([statistic(one) for one in seeds])
    whole = protocol in WHOLE
    interval = student_interval(scores) if whole else mean_interval(seeds, statistic)
    iqm = interquartile_mean(np.concatenate(seeds))
    iqm_interval = bootstrap_interval(seeds, interquartile_mean)
    return Score(float(scores.mean()), interval, iqm, iqm_interval), len(seeds)


def compare(claims: Claims, records: Records) -> list[Comparison]:
    """Every comparison of a paper, in its order."""
    return [
        _compare(table, better, other, records)
        for table in claims.tables
        for better, other in table.pairs
    ]


def _compare(table: Table, better: Cell, other: Cell, records: Records) -> Comparison:
    ahead = gap(better, other)
    sides = [samples(cell, table.protocol, records) for cell in (better, other)]
    pairs = zip((better, other), sides, strict=True)
    if missing := tuple(cell.method for cell, side in pairs if not side):
        return Comparison(table, better, other, ahead, missing, None)
    verdict = judge(sides[0], sides[1], ahead, table.protocol)
    seeds = len(sides[0]), len(sides[1])
    failures = failed(better, records) + failed(other, records)
    return Comparison(table, better, other, ahead, (), verdict, seeds, failures)


def count(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """Verdict -> number of comparisons, all of which are a paper's or all our own."""
    counts = Counter(one.word for one in comparisons)
    words = OWN_WORDS if any(one.table.own for one in comparisons) else WORDS
    return {word: counts[word] for word in (*words, NOT_RUN)}


def saliency(label: str, records: Records) -> list[Record]:
    """The records of a source of saliency, one for each annotations entry."""
    return [one for one in records.get(label, ()) if (one.on or "").startswith("annotations/")]


def paired_verdict(pair: Sources, records: Records) -> tuple[Verdict, list[float]] | None:
    """The verdict on paired differences, and the differences in the claim's order; None without
    any. A pair is two scores on the same annotations.
    """
    differences = [
        one.scores["judged"][pair.score] - other.scores["judged"][pair.score]
        for label, less in zip(pair.by, pair.less, strict=True)
        for one in saliency(label, records)
        for other in saliency(less, records)
        if one.on == other.on
        and None not in (r.scores["judged"].get(pair.score) for r in (one, other))
    ]
    if not differences:
        return None
    return judge_pairs(differences, pair.size, same=pair.same), differences
