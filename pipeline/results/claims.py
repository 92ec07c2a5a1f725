"""What a paper reports: `pipeline/results/<paper>.yaml`, read and checked."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.errors import FoveaError
from pipeline import params
from pipeline.commands.recipe import recipes
from pipeline.results.paired import DIGITS, Claim
from pipeline.results.quoted import quote
from pipeline.results.verdict import STATISTICS, Gap

LEDGER = Path(__file__).parent  # one file a paper
SEED = re.compile(r"-s\d+$")  # of an encoder: entries that differ by `seed` alone are one row
JOINT = " + "  # between rows of several tasks that are taken as one


@dataclass(frozen=True)
class Score:
    """One number of a table, and the policy that measures it here."""

    policy: str  # or the row of a probe; "" for what Fovea does not have
    method: str
    game: str
    mean: float | None  # None where the paper has no number
    deviation: float | None  # over the paper's trials


@dataclass(frozen=True)
class Table:
    """One table of the paper: its scores, and which of them it sets against each other."""

    name: str
    recipe: str  # that has the policies, or the encoders to probe
    protocol: str  # see verdict.STATISTICS
    trials: int  # the paper's; 0 where it asked no such question
    why: str  # not everything is measured yet
    brief: str  # the same in few words, for each comparison
    note: str
    scores: dict[str, Score]  # by policy
    others: list[Score]  # of methods that Fovea does not have
    comparisons: list[tuple[Score, Score]]  # the one first that the paper puts forward

    @property
    def own(self) -> bool:
        """Whether it is our question, not the paper's."""
        return not self.trials


@dataclass(frozen=True)
class Line:
    """What is no score: a figure, a setting, another's method."""

    what: str
    paper: str
    ours: str  # "" where there is nothing
    why: str  # that there is nothing
    predictors: tuple[str, ...]  # whose kept scores are ours
    than: tuple[str, ...]  # those that they are set against, one by one
    claims: tuple[Claim, ...]  # what the paper says of that


@dataclass(frozen=True)
class Claims:
    """A whole paper."""

    paper: str
    tables: list[Table]
    lines: list[Line]

    @property
    def name(self) -> str:
        """The method's."""
        return self.paper.partition(": ")[0]

    @property
    def source(self) -> str:
        """Authors, title and year."""
        return self.paper.partition(": ")[2]


def gap(better: Score, other: Score) -> Gap | None:
    """By how much the paper puts one score above another, None where it does not say."""
    if better.mean is None or other.mean is None:
        return None
    deviations = (better.deviation or 0.0, other.deviation or 0.0)
    return Gap(better.mean - other.mean, deviations)


def read_papers(folder: Path = LEDGER) -> list[Claims]:
    """The claims of every paper, in the order of the files' names."""
    return [read_claims(path) for path in sorted(folder.glob("*.yaml"))]


def read_claims(path: Path) -> Claims:
    """Read a paper's claims.

    Raises FoveaError naming file and entry for a malformed one, where a line quotes what was not
    measured, and where a policy (or an encoder to probe) stands in no recipe: a claim without one
    could never be measured.
    """
    written = params.read_yaml(path)
    try:
        tables = [_table(table, path) for table in written["tables"]]
        lines = [_line(line, path) for line in written["lines"]]
        known = {name for recipe in recipes().values() for name in _predictors(recipe)}
        lost = {name for line in lines for name in line.predictors + line.than} - known
        if lost:
            raise FoveaError(f"{path}: no recipe has {', '.join(sorted(lost))}")
        return Claims(str(written["paper"]), tables, lines)
    except (KeyError, TypeError, ValueError) as error:
        raise FoveaError(f"{path}: malformed ({error!r}); see its first lines") from error


def _line(written: Mapping[str, Any], path: Path) -> Line:
    """A line; its words have the numbers of the file that `measured` names, if it names one."""
    ours = written.get("ours", "")
    if "measured" in written:
        try:
            ours = quote(written["ours"], written["measured"])
        except FoveaError as error:
            raise FoveaError(f"{path}: {written['what']}: {error}") from error
    return Line(
        written["what"],
        written["paper"],
        ours,
        written.get("why", ""),
        _labels(written, "predictors"),
        _labels(written, "than"),
        _claims(written),
    )


def _claims(written: Mapping[str, Any]) -> tuple[Claim, ...]:
    """What the paper says of predictors set against others; ValueError where it can't be told."""
    found = [
        Claim(score, float(size), same)
        for same, word in ((False, "gaps"), (True, "margins"))
        for score, size in written.get(word, {}).items()
    ]
    pairs = len(written.get("than", ()))
    if found and pairs != len(written["predictors"]):
        raise ValueError(f"than: {pairs} predictors, must be one for each")
    if unknown := {claim.score for claim in found} - DIGITS.keys():
        raise ValueError(f"no score {', '.join(sorted(unknown))}")
    return tuple(found)


def _labels(written: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(f"predictors/{name}" for name in written.get(key, ()))


def _predictors(recipe: Path) -> list[str]:
    return [f"predictors/{name}" for name in _read(recipe)["predictors"]]


@functools.cache  # each of them is asked for once a table
def _read(recipe: Path) -> dict[str, Any]:
    return params.read_yaml(recipe)


def _table(written: Mapping[str, Any], path: Path) -> Table:
    name, recipe, protocol = written["name"], written["recipe"], written["protocol"]
    scores = {policy: _score(policy, row) for policy, row in written["scores"].items()}
    if protocol not in STATISTICS:
        raise FoveaError(f"{path}: {name}: protocol {protocol!r} is none of {tuple(STATISTICS)}")
    measures = "encoders" if protocol == "probe" else "policies"
    known = {SEED.sub("", entry) for entry in _read(recipes()[recipe])[measures]}
    named = [part for row in scores for part in row.split(JOINT)]
    lost = [part for part in named if part.partition(",")[0] not in known]
    if lost:
        raise FoveaError(f"{path}: {name}: recipe {recipe} has no {measures} {', '.join(lost)}")
    pairs = [(scores[better], scores[other]) for better, other in written["comparisons"]]
    for better, other in pairs:
        ahead = gap(better, other)
        if better.game != other.game or (ahead and ahead.size <= 0):
            raise FoveaError(
                f"{path}: {name}: {better.policy} must be above {other.policy} on the same game"
            )
    return Table(
        name=name,
        recipe=recipe,
        protocol=protocol,
        trials=int(written["trials"]),
        why=written["why"],
        brief=written["brief"],
        note=written.get("note", ""),
        scores=scores,
        others=[_score("", row) for row in written.get("others", [])],
        comparisons=pairs,
    )


def _score(policy: str, row: Any) -> Score:
    method, game, mean, deviation = row
    numbers = [None if number is None else float(number) for number in (mean, deviation)]
    return Score(policy, str(method), str(game), numbers[0], numbers[1])
