"""A paper's claims: `pipeline/recipes/claims/<paper>.yaml`, read and checked."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.errors import FoveaError
from datasets.files import read_json
from pipeline.commands.recipe import RECIPES, recipes
from pipeline.config.yaml_file import read_yaml
from pipeline.results.verdict import EXAMS, PROTOCOLS, Gap

CLAIMS = RECIPES / "claims"  # one file a paper
ROOT = Path(__file__).parents[2]  # of the repository; names of `measured` are relative to it
SEEDS = range(10)  # values of "{seed}" in the name of an encoder


@dataclass(frozen=True)
class Cell:
    """One number of a table: a method on a task, and the entries that measure it here."""

    method: str
    task: str
    # A task: its policy, or encoders or exams by seed ("": none); an exam as its entry has it,
    # "encoders/x annotations/y 7".
    names: tuple[tuple[str, ...], ...]
    mean: float | None = None  # the paper's
    deviation: float | None = None  # over the paper's trials
    reading: str = "pooled"  # of a probe, see pipeline/commands/probe.py; "source" or a control
    points: tuple[str, ...] = ("tip", "object", "goal")  # of a probe


@dataclass(frozen=True)
class Table:
    """One table of the paper, or a question of our own."""

    name: str
    recipe: str  # of the policies, or of the encoders to probe
    protocol: str  # see verdict.PROTOCOLS
    trials: int | None  # the paper's, None if it names no number; 0 for our own questions
    cost: str  # of the cells that are not measured yet
    note: str
    cells: tuple[Cell, ...]
    pairs: tuple[tuple[Cell, Cell], ...]  # the first is expected to be better

    @property
    def own(self) -> bool:
        """Whether it is our own question."""
        return self.trials == 0

    def label(self, name: str) -> str:
        """The label of the artifact with the scores of a cell's name."""
        if self.protocol in EXAMS:
            return name.split()[0]
        return f"{'encoders' if self.protocol == 'probe' else 'policies'}/{name}"


@dataclass(frozen=True)
class Line:
    """A figure, a setting, or a number without a distribution."""

    what: str
    paper: str
    ours: str  # "" if nothing is measured
    cost: str  # the reason why it is not measured
    figures: dict[str, str]  # path -> caption


@dataclass(frozen=True)
class Sources:
    """Sources of saliency (labels): their mean scores, or paired differences of one score."""

    what: str
    paper: str
    by: tuple[str, ...]
    less: tuple[str, ...] = ()  # in pairs with `by`
    score: str = "mae"  # or "f_max"
    size: float = 0.0  # the paper's difference, or its margin of no difference
    same: bool = False  # whether `size` is such a margin


@dataclass(frozen=True)
class Claims:
    """A whole paper."""

    name: str  # of the method
    source: str  # authors, title and year
    tables: tuple[Table, ...]
    sources: tuple[Sources, ...]
    pairs: tuple[Sources, ...]
    lines: tuple[Line, ...]


def gap(better: Cell, other: Cell) -> Gap | None:
    """The paper's difference; None if a number is missing."""
    if better.mean is None or other.mean is None:
        return None
    return Gap(better.mean - other.mean, (better.deviation or 0.0, other.deviation or 0.0))


def read_papers(folder: Path = CLAIMS) -> list[Claims]:
    """The claims of every paper, in the order of file names."""
    return [read_claims(path) for path in sorted(folder.glob("[!.]*.yaml"))]


def read_claims(path: Path) -> Claims:
    """Read a paper's claims.

    Raises FoveaError naming the file if it is malformed, if a line quotes a missing measurement, or
    if no recipe has a policy, an encoder or a predictor that it names.
    """
    content = read_yaml(path)
    try:
        claims = Claims(
            name=str(content["name"]),
            source=str(content["source"]),
            tables=tuple(_table(table) for table in content["tables"]),
            sources=tuple(_sources(one) for one in content.get("saliency", [])),
            pairs=tuple(_sources(one) for one in content.get("pairs", [])),
            lines=tuple(_line(line) for line in content["lines"]),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise FoveaError(f"{path}: malformed ({error!r}); its first lines have the form") from error
    except FoveaError as error:
        raise FoveaError(f"{path}: {error}") from error
    return claims


def _table(part: Mapping[str, Any]) -> Table:
    name, recipe, protocol = part["name"], part["recipe"], part["protocol"]
    if protocol not in PROTOCOLS:
        raise FoveaError(f"{name}: protocol {protocol!r}, must be one of {', '.join(PROTOCOLS)}")
    table = "exams" if protocol in EXAMS else "encoders" if protocol == "probe" else "policies"
    known = _names(_read(recipes()[recipe])[table], table)
    reading = "source" if table == "exams" else Cell.reading
    cells = tuple(
        cell
        for method, row in part["methods"].items()
        for cell in _cells(
            method, {"reading": reading} | row, part["tasks"], part.get("points", {}), known
        )
    )
    for cell in cells:
        if "measured" in part["methods"][cell.method] and not all(map(any, cell.names)):
            raise FoveaError(f"{name}: recipe {recipe} has no {table} for {cell.method}")
    return Table(
        name=name,
        recipe=recipe,
        protocol=protocol,
        trials=None if part["trials"] is None else int(part["trials"]),
        cost=part["cost"],
        note=part.get("note", ""),
        cells=cells,
        pairs=tuple(pair for row in part["comparisons"] for pair in _pairs(cells, *row)),
    )


def _names(entries: Mapping[str, Any], table: str) -> dict[str, str]:
    """Names of a recipe's entries -> those in a cell."""
    if table != "exams":
        return {name: name for name in entries}
    return {n: f"{e['by']} {e['truth']} {e.get('keypoints')}" for n, e in entries.items()}


def _cells(
    method: str,
    row: Mapping[str, Any],
    tasks: Mapping[str, Any],
    points: Mapping[str, str],
    known: Mapping[str, str],
) -> Iterator[Cell]:
    """The cells of a method: on the tasks with numbers in the paper, or else on all."""
    for task in row.get("paper", row.get("tasks", tasks)):
        mean, deviation = (*map(float, row.get("paper", {}).get(task, ())), None, None)[:2]
        parts = tasks[task] if isinstance(tasks[task], list) else [tasks[task]]
        template = row.get("or", {}).get(task, row.get("measured", ""))
        names = [
            dict.fromkeys(template.format(task=part, seed=seed) for seed in SEEDS) for part in parts
        ]
        yield Cell(
            method=method,
            task=task,
            names=tuple(tuple(known.get(n, "") for n in part) for part in names if template),
            mean=mean,
            deviation=deviation,
            reading=row["reading"],
            points=(points[task],) if task in points else Cell.points,
        )


def _pairs(
    cells: Sequence[Cell], first: str, second: str, tasks: Sequence[str] | None = None
) -> Iterator[tuple[Cell, Cell]]:
    """The pairs of cells of two methods, one for each task that both have."""
    sides = [{cell.task: cell for cell in cells if cell.method == m} for m in (first, second)]
    shared = [task for task in sides[0] if task in sides[1]]
    if not shared or not set(tasks or ()) <= set(shared):
        raise FoveaError(f"no tasks to compare {first} with {second} on")
    for task in tasks or shared:
        one, other = sides[0][task], sides[1][task]
        ahead = gap(one, other)
        yield (other, one) if ahead and ahead.size < 0 else (one, other)


def _sources(part: Mapping[str, Any]) -> Sources:
    by, less = (_predictors(part.get(side, ())) for side in ("by", "less"))
    score, same = part.get("score", "mae"), "margin" in part
    if not by or len(less) not in (0, len(by)) or score not in ("mae", "f_max"):
        raise ValueError(
            f"{part['what']}: both sides must have as many, and score must be mae or f_max"
        )
    size = float(part.get("margin", part.get("size", 0.0)))
    return Sources(part["what"], part.get("paper", ""), by, less, score, size, same)


def _line(part: Mapping[str, Any]) -> Line:
    ours, cost = part.get("ours", ""), part.get("cost", "")
    if bool(ours) == bool(cost):
        raise ValueError(f"{part['what']}: must have either `ours` or `cost`")
    if "measured" in part:
        ours = quote(ours, part["measured"])
    return Line(part["what"], part["paper"], ours, cost, part.get("figures", {}))


def quote(words: str, file: str) -> str:
    """The text with fields such as `{mean:.1f}` or `{saliency[figures][rounds]}` (as in str.format)
    replaced by the values of a committed JSON file, and followed by the file's name.

    Raises FoveaError naming the file if it is missing or malformed, or lacks a key.
    """
    try:
        values = read_json(ROOT / file)
        return f"{words.format_map(values)} (`{file}`)"
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise FoveaError(f"{file}: does not fill {words!r} ({error!r})") from error


def _predictors(names: Sequence[str]) -> tuple[str, ...]:
    known = {name for recipe in recipes().values() for name in _read(recipe)["predictors"]}
    if missing := set(names) - known:
        raise FoveaError(f"no recipe has predictors {', '.join(sorted(missing))}")
    return tuple(f"predictors/{name}" for name in names)


@functools.cache  # each is read once a table
def _read(recipe: Path) -> dict[str, Any]:
    return read_yaml(recipe)
