"""What a paper reports: `pipeline/ledger/<paper>.yaml`, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.errors import FoveaError
from pipeline import params
from pipeline.recipe import recipes

CLAIMS = Path(__file__).parent / "spirl.yaml"
PROTOCOLS = ("mean", "median")


@dataclass(frozen=True)
class Score:
    """One number of a table, and the policy that measures it here."""

    policy: str
    method: str
    game: str
    mean: float
    deviation: float  # over the paper's trials


@dataclass(frozen=True)
class Table:
    """One table of the paper: its scores, and which of them it sets against each other."""

    name: str
    recipe: str  # that has the policies
    protocol: str  # "mean" at the end of training, or best "median" of the checkpoints
    trials: int
    why: str  # nothing is measured yet
    note: str
    scores: dict[str, Score]  # by policy
    comparisons: list[tuple[Score, Score]]  # the paper's better one first


@dataclass(frozen=True)
class Line:
    """What is no score: a figure, a setting, another's method."""

    what: str
    paper: str
    ours: str  # "" where there is nothing
    why: str  # that there is nothing


@dataclass(frozen=True)
class Claims:
    """A whole paper."""

    paper: str
    tables: list[Table]
    lines: list[Line]


def read_claims(path: Path = CLAIMS) -> Claims:
    """Read a paper's claims.

    Raises FoveaError naming file and entry for a malformed one, and where a policy stands in no
    recipe: a claim without a policy could never be measured.
    """
    written = params.read_yaml(path)
    try:
        tables = [_table(table, path) for table in written["tables"]]
        lines = [
            Line(line["what"], line["paper"], line.get("ours", ""), line.get("why", ""))
            for line in written["lines"]
        ]
        return Claims(str(written["paper"]), tables, lines)
    except (KeyError, TypeError, ValueError) as error:
        raise FoveaError(f"{path}: malformed ({error!r}); see its first lines") from error


def _table(written: Mapping[str, Any], path: Path) -> Table:
    name, recipe, protocol = written["name"], written["recipe"], written["protocol"]
    scores = {
        policy: Score(policy, method, game, float(mean), float(deviation))
        for policy, (method, game, mean, deviation) in written["scores"].items()
    }
    if protocol not in PROTOCOLS:
        raise FoveaError(f"{path}: {name}: protocol {protocol!r} is none of {PROTOCOLS}")
    known = params.read_yaml(recipes()[recipe])["policies"]
    lost = [policy for policy in scores if policy not in known]
    if lost:
        raise FoveaError(f"{path}: {name}: recipe {recipe} has no policies {', '.join(lost)}")
    pairs = [(scores[better], scores[other]) for better, other in written["comparisons"]]
    for better, other in pairs:
        if better.game != other.game or better.mean <= other.mean:
            raise FoveaError(
                f"{path}: {name}: {better.policy} must be above {other.policy} on the same game"
            )
    return Table(
        name, recipe, protocol, int(written["trials"]), written["why"], written.get("note", ""),
        scores, pairs,
    )  # fmt: skip
