"""Records: the measurements of one artifact, a JSON file each in `pipeline/recipes/measured/`.

A record of `policies/x` is one seed and its evaluation episodes; of an encoder, linear probes of
its frozen features on frames; of a source of saliency (a seed of a policy can be one), the scores
of an exam on annotations; of frames, the metrics of their collection. Each names all inputs of the
artifact with all their settings, and the runs of the stages. The artifact's settings must be those
of a recipe, which is checked when a record is added and when it is read. Its inputs may differ from
the recipe if a note says so.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.errors import FoveaError
from datasets.files import read_json, write_atomic
from pipeline import params
from pipeline.commands.recipe import RECIPES, recipes
from pipeline.config.tables import EVALUATION_KEYS, Entry, Params
from pipeline.parts.episodes import read_episodes
from pipeline.parts.fixated import read_scores

MEASURED = RECIPES / "measured"
SMALL = ("quick",)  # recipes of smoke tests
FREE = EVALUATION_KEYS | {"seeds"}  # keys of a policy that change no trained seed


@dataclass(frozen=True)
class Record:
    """One measurement of one artifact."""

    artifact: str  # "policies/frostbite-spirl"
    seed: int | None  # of a policy
    on: str | None  # the test data: "annotations/reach-further", "frames/reach-unseen"
    note: str
    made_from: dict[str, dict[str, Any]]  # label -> digest and entry; the artifact's own first
    measured_on: dict[str, dict[str, Any]]  # the same of `on`
    versions: dict[str, str]
    runs: dict[str, dict[str, Any]]  # "train-frostbite-spirl" -> its record by pipeline/runtime
    scores: dict[str, Any]

    @property
    def path(self) -> Path:
        """`policies/frostbite-spirl-seed-0.json`, `predictors/reach-30-on-reach-further.json`; with
        the number of keypoints of an exam: `-on-mspacman-objects-k7.json`.
        """
        seed = "" if self.seed is None else f"-seed-{self.seed}"
        on = "" if self.on is None else f"-on-{self.on.partition('/')[2]}"
        k = f"-k{self.keypoints}" if self.keypoints else ""
        return Path(f"{self.artifact}{seed}{on}{k}.json")

    @property
    def keypoints(self) -> int | None:
        """Keypoints a frame, of an exam; None of other records."""
        k = self.scores.get("detected", {}).get("k")
        return k if isinstance(k, int) else None

    @property
    def evaluated(self) -> bool:
        """Whether it has a policy's evaluation episodes."""
        return self.seed is not None and self.on is None

    @property
    def entry(self) -> dict[str, Any]:
        """The artifact's own settings, with all defaults."""
        return dict(self.made_from[self.artifact]["entry"])

    def is_like(self, other: Record) -> bool:
        """Whether the inputs of both have the same settings, in the keys that both have."""
        pairs = [
            (self.made_from[label]["entry"], other.made_from[label]["entry"])
            for label in self.made_from.keys() & other.made_from.keys() - {self.artifact}
        ]
        alike = all(one[key] == two[key] for one, two in pairs for key in one.keys() & two.keys())
        return alike and self.made_from.keys() == other.made_from.keys()


def read_records(folder: Path = MEASURED) -> dict[str, list[Record]]:
    """Label of an artifact -> its records, by seed.

    Raises FoveaError naming a file that is malformed or has not a recipe's settings, or a policy
    whose seeds have encoders of different settings.
    """
    records: dict[str, list[Record]] = {}
    for path in sorted(folder.rglob("[!.]*.json")):
        try:
            record = Record(**read_json(path))
        except (ValueError, TypeError) as error:
            raise FoveaError(f"{path}: malformed ({error}); measure it again") from error
        if path != folder / record.path:
            raise FoveaError(f"{path}: is the record {record.path}; rename or remove it")
        check(record, path)
        records.setdefault(record.artifact, []).append(record)
    for label, seeds in records.items():
        seeds.sort(key=lambda one: (one.seed or 0, one.on or ""))
        if label.startswith("policies/") and not all(one.is_like(seeds[0]) for one in seeds):
            raise FoveaError(f"{folder}: {label}: its seeds have encoders of different settings")
    return records


def write_record(record: Record, folder: Path = MEASURED) -> Path:
    """Write a checked record, one key a line for readable diffs; returns the file."""
    path = folder / record.path
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = dataclasses.asdict(record).items()
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in pairs)
    write_atomic(path, f"{{\n{lines}\n}}\n".encode())
    return path


def check(record: Record, path: Path) -> None:
    """Raise FoveaError, naming `path`, for a record that is malformed or has other settings."""
    try:
        _check_scores(record)
        for run in record.runs.values():
            _ = run["commit"], float(run["wall_seconds"]), int(run["resumed"])
            _ = [run["machine"][key] for key in ("processor", "cores", "gpu")]
        lineage = record.made_from | record.measured_on
        own = record.entry
        if record.evaluated:
            own |= {key: record.scores[key] for key in EVALUATION_KEYS & record.scores.keys()}
        home = home_of(record.artifact, lineage)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FoveaError(f"{path}: malformed ({error!r}); measure it again") from error
    if home is None:
        raise FoveaError(f"{path}: {record.artifact} is in none of {', '.join(checked_recipes())}")
    recipe = checked_recipes()[home]
    if keys := differences(own, recipe.entry(*record.artifact.split("/"))):
        raise FoveaError(f"{path}: {', '.join(keys)} not as in the recipe")
    others = {label: one for label, one in lineage.items() if label != record.artifact}
    if (keys := differences_of_all(others, recipe)) and not record.note:
        raise FoveaError(
            f"{path}: {'; '.join(keys)} not as in the recipe; say so in a note (--note)"
        )
    common = sorted(record.made_from.keys() & record.measured_on.keys())
    if common and not record.note:
        raise FoveaError(
            f"{path}: measured on {common[0]}, which it was made from; measure it on others, or "
            "say so in a note (--note)"
        )


def _check_scores(record: Record) -> None:
    """Raise ValueError or KeyError if the scores are not those of this kind of record."""
    scores, entry = record.scores, record.entry
    if record.evaluated:
        for of in ("returns", "successes") if "successes" in scores["random"] else ("returns",):
            seed = read_episodes(scores | {"seed": record.seed}, scores["random"], of)
            if any(len(one) != scores["games"] for one in (*seed.returns, seed.random)):
                raise ValueError(f"must be {scores['games']} episodes at every checkpoint")
        if seed.failed is None and seed.steps[-1:] != (entry["steps"],):
            raise ValueError(f"must have episodes after the last of {entry['steps']} steps")
    elif record.on and record.on.startswith("frames/"):
        for places in scores["readings"].values():
            for place in places.values():
                shapes = {len(place[key]) for key in ("r2", "error")}
                if shapes != {len(scores["splits"])} or None in place["error"]:
                    raise ValueError(f"must be {len(scores['splits'])} numbers for every position")
    elif record.on:
        _ = scores["frames"], scores["judged"]["mae"], scores["judged"]["zero_mae"]
        values = [v for v in scores["judged"].values() if v is not None]
        rows = [row for row in scores.get("detected", {}).values() if isinstance(row, dict)]
        values += [row["recall"] for row in rows] + [row["precision"] or 0.0 for row in rows]
        if "detected" in scores and not (record.keypoints and rows):
            raise ValueError("detected has no number of keypoints, or no scores")
        for looked in scores.get("looked", {}).values():
            read_scores(looked, scores["frames"])
        if not np.isfinite(values).all():
            raise ValueError("scores must be finite numbers")


@functools.cache
def checked_recipes() -> dict[str, Params]:
    """Every recipe whose runs count, by name."""
    return {name: params.load(path) for name, path in recipes().items() if name not in SMALL}


def home_of(label: str, lineage: Iterable[str] = ()) -> str | None:
    """The recipe with an entry; of several, the one with most labels in `lineage`; None if none."""
    labels = [one.split("/") for one in (label, *lineage)]
    table, name = labels[0]
    homes = {key: one.tables for key, one in checked_recipes().items() if name in one.tables[table]}
    return max(homes, key=lambda key: sum(n in homes[key][t] for t, n in labels), default=None)


def differences(recorded: Mapping[str, Any], expected: Entry) -> list[str]:
    """Keys in which a recorded entry is not the recipe's.

    A key that the record lacks was added to the code later; its default is the earlier behaviour.
    """
    parts = [part for part in (expected.keys, expected.config) if part is not None]
    fields = (field for part in parts for field in dataclasses.fields(part))
    # As in JSON, like the record: a tuple is a list there.
    defaults = {field.name: _as_json(field.default) for field in fields}
    entry = _as_json(expected.resolved(FREE - (EVALUATION_KEYS & recorded.keys())))
    keys = [key for key, value in entry.items() if recorded.get(key, defaults.get(key)) != value]
    return keys + [key for key in recorded if key not in entry and key not in FREE]


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda _: None))


def differences_of_all(lineage: Mapping[str, Mapping[str, Any]], recipe: Params) -> list[str]:
    """The differences of all inputs of an artifact, as `label: keys`.

    Early records have no digest of an encoder's frames, and of their settings only the count.
    """
    lines = []
    for label, one in lineage.items():
        table, name = label.split("/")
        expected = recipe.find(table, name)
        if expected is None:
            keys = ["no such entry"]
        elif one["digest"] is None:
            entry = expected.resolved()
            keys = [key for key, value in one["entry"].items() if entry.get(key) != value]
        else:
            keys = differences(one["entry"], expected)
        lines += [f"{label}: {', '.join(keys)}"] if keys else []
    return lines
