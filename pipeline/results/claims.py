"""What a paper reports: `pipeline/recipes/claims/<paper>.yaml`, read and checked."""

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
from pipeline.results.verdict import PROTOCOLS, Gap

CLAIMS = RECIPES / "claims"  # one file a paper
ROOT = Path(__file__).parents[2]  # of the repository, from which `measured` names files
SEEDS = range(10)  # that "{seed}" in the name of an encoder may be


@dataclass(frozen=True)
class Cell:
    """One number of a table: a method on a task, and what measures it here."""

    method: str
    task: str
    names: tuple[tuple[str, ...], ...]  # a task: its policy, or encoders by seed ("": none)
    mean: float | None = None  # the paper's
    deviation: float | None = None  # over the paper's trials
    reading: str = "pooled"  # of a probe, see pipeline/commands/probe.py
    points: tuple[str, ...] = ("tip", "object", "goal")  # of a probe


@dataclass(frozen=True)
class Table:
    """One table of the paper, or a question of our own."""

    name: str
    recipe: str  # that has the policies, or the encoders to probe
    protocol: str  # see verdict.PROTOCOLS
    trials: int  # the paper's; 0 for our own questions
    cost: str  # of what is not measured yet
    note: str
    cells: tuple[Cell, ...]
    pairs: tuple[tuple[Cell, Cell], ...]  # the one first that is expected to be better

    @property
    def own(self) -> bool:
        """Whether it is a question of our own."""
        return not self.trials


@dataclass(frozen=True)
class Line:
    """A figure, a setting, or a number without a distribution."""

    what: str
    paper: str
    ours: str  # "" where nothing is measured
    cost: str  # why not
    figures: dict[str, str]  # path -> caption


@dataclass(frozen=True)
class Sources:
    """Sources of saliency (labels): their mean scores, or paired differences of one score."""

    what: str
    paper: str
    by: tuple[str, ...]
    less: tuple[str, ...] = ()  # in pairs with `by`
    score: str = "mae"  # or "f_max"
    size: float = 0.0  # the paper's difference, or the margin within which it sees none
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
    """The paper's difference; None where a number is missing."""
    if better.mean is None or other.mean is None:
        return None
    return Gap(better.mean - other.mean, (better.deviation or 0.0, other.deviation or 0.0))


def read_papers(folder: Path = CLAIMS) -> list[Claims]:
    """The claims of every paper, in the order of the files' names."""
    return [read_claims(path) for path in sorted(folder.glob("[!.]*.yaml"))]


def read_claims(path: Path) -> Claims:
    """Read a paper's claims.

    Raises FoveaError naming the file where it is malformed, where a line quotes what was not
    measured, and where no recipe has a policy, an encoder or a predictor that it names.
    """
    written = read_yaml(path)
    try:
        claims = Claims(
            name=str(written["name"]),
            source=str(written["source"]),
            tables=tuple(_table(table) for table in written["tables"]),
            sources=tuple(_sources(one) for one in written.get("saliency", [])),
            pairs=tuple(_sources(one) for one in written.get("pairs", [])),
            lines=tuple(_line(line) for line in written["lines"]),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise FoveaError(f"{path}: malformed ({error!r}); see its first lines") from error
    except FoveaError as error:
        raise FoveaError(f"{path}: {error}") from error
    return claims


def _table(written: Mapping[str, Any]) -> Table:
    name, recipe, protocol = written["name"], written["recipe"], written["protocol"]
    if protocol not in PROTOCOLS:
        raise FoveaError(f"{name}: protocol {protocol!r} is none of {tuple(PROTOCOLS)}")
    table = "encoders" if protocol == "probe" else "policies"
    known = _read(recipes()[recipe])[table]
    cells = tuple(
        cell
        for method, row in written["methods"].items()
        for cell in _cells(method, row, written["tasks"], written.get("points", {}), known)
    )
    for cell in cells:
        if "measured" in written["methods"][cell.method] and not all(map(any, cell.names)):
            raise FoveaError(f"{name}: recipe {recipe} has no {table} for {cell.method}")
    return Table(
        name=name,
        recipe=recipe,
        protocol=protocol,
        trials=int(written["trials"]),
        cost=written["cost"],
        note=written.get("note", ""),
        cells=cells,
        pairs=tuple(pair for row in written["comparisons"] for pair in _compared(cells, *row)),
    )


def _cells(
    method: str,
    row: Mapping[str, Any],
    tasks: Mapping[str, Any],
    points: Mapping[str, str],
    known: Mapping[str, Any],
) -> Iterator[Cell]:
    """The cells of a method: of the tasks that the paper has numbers of, or else of all."""
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
            names=tuple(tuple(n if n in known else "" for n in part) for part in names if template),
            mean=mean,
            deviation=deviation,
            reading=row.get("reading", Cell.reading),
            points=(points[task],) if task in points else Cell.points,
        )


def _compared(
    cells: Sequence[Cell], first: str, second: str, tasks: Sequence[str] | None = None
) -> Iterator[tuple[Cell, Cell]]:
    """The pairs of two methods, on each task that both have."""
    sides = [{cell.task: cell for cell in cells if cell.method == m} for m in (first, second)]
    shared = [task for task in sides[0] if task in sides[1]]
    if not shared or not set(tasks or ()) <= set(shared):
        raise FoveaError(f"no tasks to compare {first} with {second} on")
    for task in tasks or shared:
        one, other = sides[0][task], sides[1][task]
        ahead = gap(one, other)
        yield (other, one) if ahead and ahead.size < 0 else (one, other)


def _sources(written: Mapping[str, Any]) -> Sources:
    by, less = (_predictors(written.get(side, ())) for side in ("by", "less"))
    score, same = written.get("score", "mae"), "margin" in written
    if not by or len(less) not in (0, len(by)) or score not in ("mae", "f_max"):
        raise ValueError(f"{written['what']}: needs as many on both sides, and mae or f_max")
    size = float(written.get("margin", written.get("size", 0.0)))
    return Sources(written["what"], written.get("paper", ""), by, less, score, size, same)


def _line(written: Mapping[str, Any]) -> Line:
    ours, cost = written.get("ours", ""), written.get("cost", "")
    if bool(ours) == bool(cost):
        raise ValueError(f"{written['what']}: needs either `ours` or `cost`")
    if "measured" in written:
        ours = quote(ours, written["measured"])
    return Line(written["what"], written["paper"], ours, cost, written.get("figures", {}))


def quote(words: str, file: str) -> str:
    """The words with `{mean:.1f}` or `{saliency[figures][rounds]}` (as str.format has them)
    replaced by what a committed JSON file holds under these keys, and the file's name.

    Raises FoveaError naming the file that is missing or malformed, or the key that it lacks.
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


@functools.cache  # each of them is asked for once a table
def _read(recipe: Path) -> dict[str, Any]:
    return read_yaml(recipe)
