"""What the report shows: the entries of params.yaml, their artifacts, scores, curves and runs."""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from datasets.errors import FoveaError
from pipeline.runtime.artifact import STAGES
from rl.statistics import bootstrap_interval, interquartile_mean

Floats = NDArray[np.float64]
Interval = tuple[float, float]

TABLES = tuple(table for table in STAGES if table != "report")
REFERENCES = Path(__file__).parents[2] / "rl" / "reference_scores.json"


@dataclass(frozen=True)
class Item:
    """One entry of a table and what its stage left; `manifest` and `digest` are None if nothing."""

    table: str
    name: str
    folder: Path
    entry: dict[str, Any]
    manifest: dict[str, Any] | None
    digest: str | None
    run: dict[str, Any] | None

    @property
    def key(self) -> str:
        """The name other artifacts call it by."""
        return f"{self.table}/{self.name}"

    @property
    def command(self) -> str:
        """What builds it."""
        return _command(self.table, self.name)

    @property
    def inputs(self) -> dict[str, str]:
        """Key of each input -> digest of its manifest when this artifact was built."""
        return dict(self.manifest["inputs"]) if self.manifest else {}


@dataclass(frozen=True)
class Score:
    """Mean and interquartile mean of some games, each with its 95 % bootstrap interval."""

    mean: float
    mean_interval: Interval
    iqm: float
    iqm_interval: Interval


@dataclass(frozen=True)
class Seed:
    """One trained seed: returns of its games at each checkpoint, its error if it failed."""

    seed: int
    failed: str | None
    steps: tuple[int, ...]
    returns: tuple[Floats, ...]  # or 1 and 0, whether each game succeeded

    def at(self, step: int) -> Floats | None:
        """Returns at the last checkpoint up to `step`; a failed seed keeps its last ones."""
        reached = [r for s, r in zip(self.steps, self.returns, strict=True) if s <= step]
        return reached[-1] if reached else None


@dataclass(frozen=True)
class Evaluation:
    """evaluation.json of one policy."""

    env: str
    steps: int
    paper_steps: int
    games: int
    seeds: tuple[Seed, ...]
    random: Floats

    @property
    def smoke(self) -> bool:
        """Whether training was shorter than the paper's."""
        return self.steps < self.paper_steps

    @property
    def failed(self) -> int:
        """How many seeds failed."""
        return sum(seed.failed is not None for seed in self.seeds)

    @property
    def checkpoints(self) -> list[int]:
        """Every step at which some seed was evaluated."""
        return sorted({step for seed in self.seeds for step in seed.steps})

    def scores(self, step: int) -> list[Floats]:
        """Returns of every seed at `step`; one that failed without a checkpoint plays at random."""
        games = (seed.at(step) for seed in self.seeds)
        return [self.random if g is None else g for g in games]

    @property
    def final(self) -> list[Floats]:
        """Returns of every seed at the end of training."""
        return self.scores(self.steps)


def gather(params: Mapping[str, Any], artifacts: Path) -> dict[str, list[Item]]:
    """Artifacts of every entry in the tables of params.yaml; evaluations go by the policies."""
    tables: dict[str, Mapping[str, Any]] = {t: params.get(t) or {} for t in TABLES}
    tables["evaluations"] = {name: {"policy": name} for name in tables["policies"]}
    return {
        table: [_item(table, name, entry, artifacts) for name, entry in entries.items()]
        for table, entries in tables.items()
    }


def _command(table: str, name: str) -> str:
    return f"dvc repro {STAGES[table]}@{name}"


def family(items: Sequence[Item]) -> list[Item]:
    """The items so ordered that inputs come before what is made of them, children close by."""
    ordered: dict[str, Item] = {}
    known = {item.key for item in items}

    def place(item: Item) -> None:
        if item.key in ordered or any(i in known and i not in ordered for i in item.inputs):
            return
        ordered[item.key] = item
        for child in items:
            if item.key in child.inputs:
                place(child)

    for item in items:
        place(item)
    return list(ordered.values())


def _item(table: str, name: str, entry: Mapping[str, Any], artifacts: Path) -> Item:
    folder = artifacts / table / name
    manifest = read_json(folder / "manifest.json")
    digest = None
    if manifest is not None:
        digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
        for key in ("entry", "inputs", "metrics", "files"):
            if not isinstance(manifest.get(key), dict):
                raise FoveaError(f"{folder}/manifest.json: no {key}; `{_command(table, name)}`")
        entry = manifest["entry"]
    run = read_json(artifacts / ".runs" / f"{STAGES[table]}-{name}.json")
    if run and run.get("digest", digest) != digest:  # of another artifact of this name
        run = None
    return Item(table, name, folder, dict(entry), manifest, digest, run)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, None where there is no file."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:  # not JSON, or not UTF-8
        raise FoveaError(f"{path}: not JSON ({error}); build the artifact again") from error
    if not isinstance(value, dict):
        raise FoveaError(f"{path}: a JSON object was expected; build the artifact again")
    return cast(dict[str, Any], value)


def read_evaluation(folder: Path, of: str = "returns") -> Evaluation | None:
    """evaluation.json in `folder`, None where there is none; FoveaError where it is malformed.

    `of` "successes" has 1 and 0 for returns; None where the environment tells of no success.
    """
    path = folder / "evaluation.json"
    value = read_json(path)
    if value is None:
        return None
    try:
        if of != "returns" and of not in value["random"]:
            return None
        return Evaluation(
            env=str(value["env"]),
            steps=int(value["steps"]),
            paper_steps=int(value["paper_steps"]),
            games=int(value["games"]),
            seeds=tuple(_seed(seed, of) for seed in value["seeds"]),
            random=_returns(value["random"][of]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FoveaError(f"{path}: unexpected content ({error!r}); run evaluate again") from error


def _seed(value: Mapping[str, Any], of: str) -> Seed:
    points = sorted(value["checkpoints"], key=lambda point: int(point["step"]))
    failed = value["failed"]
    return Seed(
        seed=int(value["seed"]),
        failed=None if failed is None else str(failed),
        steps=tuple(int(point["step"]) for point in points),
        returns=tuple(_returns(point[of]) for point in points),
    )


def _returns(values: object) -> Floats:
    returns = np.asarray(values, dtype=np.float64)
    if returns.ndim != 1 or not returns.size or not np.isfinite(returns).all():
        raise ValueError("returns must be a list of finite numbers, at least one")
    return returns


def read_curve(path: Path, column: str) -> Floats | None:
    """Columns `step` and `column` of a CSV file as (n, 2), None where there is no file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(float(row["step"]), float(row[column])) for row in csv.DictReader(file)]
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise FoveaError(f"{path}: no numbers under step and {column} ({error!r})") from error
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def score(games: list[Floats]) -> Score:
    """Score of some seeds' games; the intervals resample seeds, and games within each."""
    pooled = np.concatenate(games)
    return Score(
        float(pooled.mean()),
        bootstrap_interval(games, _mean),
        interquartile_mean(pooled),
        bootstrap_interval(games, interquartile_mean),
    )


def _mean(returns: Floats) -> float:
    return float(returns.mean())


def reference(env: str) -> dict[str, float]:
    """Published scores for an environment word: {"random": …, "human": …}, empty if unknown."""
    games = (read_json(REFERENCES) or {}).get("games", {})
    return dict(games.get(env.rpartition("/")[2], {}))


def reference_source() -> str:
    """Where the published scores come from, empty if there are none."""
    return str((read_json(REFERENCES) or {}).get("source", ""))
