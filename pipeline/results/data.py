"""The report's data: the entries of params.yaml, their artifacts, scores and curves."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from datasets.errors import FoveaError
from datasets.files import read_json
from datasets.sealed import MANIFEST
from pipeline.parts.episodes import Episodes, Floats, numbers, read_episodes
from pipeline.runtime.artifact import STAGES, open_artifact
from rl.statistics import bootstrap_interval, interquartile_mean

Interval = tuple[float, float]

REFERENCES = Path(__file__).parents[2] / "rl" / "reference_scores.json"


@dataclass(frozen=True)
class Item:
    """One entry of a table and its artifact; `manifest` and `digest` are None without one."""

    table: str
    name: str
    folder: Path
    entry: dict[str, Any]
    manifest: dict[str, Any] | None
    digest: str | None

    @property
    def key(self) -> str:
        """The artifact's label."""
        return f"{self.table}/{self.name}"

    @property
    def command(self) -> str:
        """The command that builds it."""
        return f"dvc repro {STAGES[self.table]}@{self.name}"

    @property
    def inputs(self) -> dict[str, str]:
        """Label of each input -> its digest when this artifact was built."""
        return dict(self.manifest["inputs"]) if self.manifest else {}


@dataclass(frozen=True)
class Score:
    """Mean and interquartile mean of some episodes, each with its 95 % bootstrap interval."""

    mean: float
    mean_interval: Interval
    iqm: float
    iqm_interval: Interval


@dataclass(frozen=True)
class Evaluation:
    """evaluation.json of one policy."""

    env: str
    steps: int
    paper_steps: int
    games: int  # episodes of a seed
    seeds: tuple[Episodes, ...]
    random: Floats

    @property
    def smoke(self) -> bool:
        """Whether training was shorter than in the paper."""
        return self.steps < self.paper_steps

    @property
    def failed(self) -> int:
        """The number of failed seeds."""
        return sum(seed.failed is not None for seed in self.seeds)


def gather(params: Mapping[str, Any], artifacts: Path) -> dict[str, list[Item]]:
    """The artifacts of every entry in params.yaml's tables, and the policies' evaluations."""
    tables: dict[str, Mapping[str, Any]] = {t: params.get(t) or {} for t in STAGES if t != "report"}
    tables["evaluations"] = {name: {"policy": name} for name in tables["policies"]}
    return {
        table: [_item(table, name, entry, artifacts) for name, entry in entries.items()]
        for table, entries in tables.items()
    }


def _item(table: str, name: str, entry: Mapping[str, Any], artifacts: Path) -> Item:
    folder = artifacts / table / name
    if not (folder / MANIFEST).exists():
        return Item(table, name, folder, dict(entry), None, None)
    artifact = open_artifact(f"{table}/{name}", artifacts)
    content = artifact.manifest
    return Item(table, name, folder, dict(content["entry"]), content, artifact.digest)


def read_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None without a file."""
    try:
        value = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except FoveaError as error:
        raise FoveaError(f"{error}; build the artifact again") from error
    if not isinstance(value, dict):
        raise FoveaError(f"{path}: must be a JSON object; build the artifact again")
    return cast(dict[str, Any], value)


def read_evaluation(folder: Path, of: str = "returns") -> Evaluation | None:
    """evaluation.json in `folder`, None without one. Raises FoveaError if it is malformed.

    With `of` "successes" returns are 1 or 0, and None if the environment reports no success.
    """
    path = folder / "evaluation.json"
    value = read_object(path)
    if value is None:
        return None
    try:
        random = value["random"]
        if of != "returns" and of not in random:
            return None
        return Evaluation(
            env=str(value["env"]),
            steps=int(value["steps"]),
            paper_steps=int(value["paper_steps"]),
            games=int(value["games"]),
            seeds=tuple(read_episodes(seed, random, of) for seed in value["seeds"]),
            random=numbers(random[of], of),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FoveaError(f"{path}: unexpected content ({error!r}); run evaluate again") from error


def read_curve(path: Path, column: str) -> Floats | None:
    """Columns `step` and `column` of a CSV file as (n, 2); None without a file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(float(row["step"]), float(row[column])) for row in csv.DictReader(file)]
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise FoveaError(
            f"{path}: its columns step and {column} must be numbers ({error!r})"
        ) from error
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def score(episodes: list[Floats]) -> Score:
    """The score of some seeds' episodes; intervals resample seeds, and episodes within each."""
    values = np.concatenate(episodes)
    return Score(
        float(values.mean()),
        bootstrap_interval(episodes, lambda returns: float(returns.mean())),
        interquartile_mean(values),
        bootstrap_interval(episodes, interquartile_mean),
    )


def reference(env: str) -> dict[str, float]:
    """Published scores of an environment: {"random": …, "human": …}, empty if unknown."""
    games = (read_object(REFERENCES) or {}).get("games", {})
    return dict(games.get(env.rpartition("/")[2], {}))
