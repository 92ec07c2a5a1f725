"""Records of measurements at the settings of recipes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import params
from pipeline.commands.recipe import recipes
from pipeline.config.tables import EVALUATION_KEYS, Params
from pipeline.results import claims, record
from pipeline.results.record import Record, write_record

SPIRL = params.load(recipes()["spirl"])
RUN: dict[str, Any] = {
    "commit": "abc",
    "machine": {"processor": "a processor", "cores": 2, "gpu": None},
    "wall_seconds": 3600.0,
    "resumed": 0,
}
SMALL = """
frames:
  reach: {env: metaworld/reach, source: expert, count: 96}
  unseen: {env: metaworld/reach, source: expert, count: 48, seed: 1}
annotations:
  reach: {frames: reach, annotator: simulated, count: 5}
  further: {frames: unseen, annotator: simulated, count: 20, seed: 1}
  objects: {frames: unseen, annotator: objects, count: 20}
predictors:
  near: {data: annotations/reach, model: centre}
  far: {data: annotations/reach, model: centre, sigma: 0.5}
saliency: {}
encoders:
  reach-mae-s0: {data: frames/reach, model: mae, patch: 8}
  reach-mae-s1: {data: frames/reach, model: mae, patch: 8, seed: 1}
  reach-mae-s2: {data: frames/reach, model: mae, patch: 8, seed: 2}
  door-mae-s0: {data: frames/reach, model: mae, patch: 8}
  door-mae-s2: {data: frames/reach, model: mae, patch: 8, seed: 2}
policies: {}
exams:
  near: {truth: annotations/further, by: predictors/near}
  mae-s0: {truth: annotations/objects, by: encoders/reach-mae-s0, keypoints: 7}
  mae-s1: {truth: annotations/objects, by: encoders/reach-mae-s1, keypoints: 7}
  mae-s2: {truth: annotations/objects, by: encoders/reach-mae-s2, keypoints: 7}
  mae-ten: {truth: annotations/objects, by: encoders/reach-mae-s0, keypoints: 10}
"""


def small_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """SMALL as the recipe `small`, the only one for claims and records."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    loaded = params.load(path)
    monkeypatch.setattr(record, "checked_recipes", lambda: {"small": loaded})
    monkeypatch.setattr(claims, "recipes", lambda: {"small": path})
    return loaded


def fifty(values: list[float]) -> list[float]:
    return (values * 50)[:50]


def lineage_of(recipe: Params, *labels: str) -> dict[str, dict[str, Any]]:
    """Digest and entry of artifacts."""
    return {
        label: {"digest": "d" * 64, "entry": recipe.entry(*label.split("/")).resolved()}
        for label in labels
    }


def a_record(artifact: str, on: str | None, lineage: Any, measured_on: Any, scores: Any) -> Record:
    return Record(
        artifact=artifact,
        seed=None,
        on=on,
        note="",
        made_from=lineage,
        measured_on=measured_on,
        versions={},
        runs={"stage": RUN},
        scores=scores,
    )


def seed_of(
    policy: str, seed: int, returns: list[list[float]], failed: str | None = None
) -> Record:
    """A seed of recipe spirl; the last of `returns` are those at the end of training."""
    entry = SPIRL.entry("policies", policy)
    steps = entry.config.steps
    label, encoder = f"policies/{policy}", f"encoders/{entry.keys.encoder}"
    lineage = lineage_of(SPIRL, label, encoder, "frames/frostbite")
    for key in EVALUATION_KEYS:
        del lineage[label]["entry"][key]
    points = [
        {"step": steps - 10_000 * i, "returns": fifty(values)}
        for i, values in enumerate(reversed(returns))
    ]
    scores = {
        "games": 50,
        "epsilon": 0.001,
        "sample": False,
        "failed": failed,
        "checkpoints": points,
        "random": {"returns": fifty([1.0, 2.0])},
    }
    one = a_record(label, None, lineage, {}, scores)
    return replace(one, seed=seed, runs={f"train-{policy}": RUN})


def probe_of(recipe: Params, encoder: str, **r2: float) -> Record:
    """Probes of an encoder whose readings have these R² at the points of the image."""

    def places(value: float) -> dict[str, Any]:
        r2 = [value - 0.01, value, value + 0.01]
        return {
            f"image {point}": {"r2": r2, "error": [1.0, 2.0, 3.0], "penalty": [0.1] * 3}
            for point in ("tip", "object", "goal")
        }

    readings = {name.replace("_", " "): places(value) for name, value in r2.items()}
    scores = {"rows": 48, "left_out": 0, "episodes": 8, "splits": [0, 1, 2], "readings": readings}
    label, on = f"encoders/{encoder}", "frames/unseen"
    return a_record(
        label,
        on,
        lineage_of(recipe, label, "frames/reach"),
        lineage_of(recipe, on),
        scores,
    )


def saliency_of(recipe: Params, name: str, mae: float, **more: float) -> Record:
    """Scores of a predictor on annotations."""
    label, on = f"predictors/{name}", "annotations/further"
    scores = {"frames": 20, "judged": {"mae": mae, "zero_mae": 0.015, **more}, "own": {}}
    lineage = lineage_of(recipe, label, "annotations/reach", "frames/reach")
    return a_record(label, on, lineage, lineage_of(recipe, on, "frames/unseen"), scores)


def row(recall: float, precision: float | None = 0.5) -> dict[str, Any]:
    """The keypoint scores of a source or control."""
    curve = {"0.20": [round(100 * recall), 100, 200]}
    shared = {"keypoints_per_frame": 7.0, "curve": curve}
    return {"recall": recall, "precision": precision, **shared}


def exam_of(recipe: Params, encoder: str, k: int = 7, **rows: float) -> Record:
    """The scores of an encoder in an exam: the recall of its keypoints and of controls."""
    label, on = f"encoders/{encoder}", "annotations/objects"
    scores = {
        "frames": 20,
        "judged": {"mae": 0.1, "zero_mae": 0.015},
        "detected": {"k": k, "ceiling": 0.9} | {name: row(recall) for name, recall in rows.items()},
        "own": {},
    }
    lineage = lineage_of(recipe, label, "frames/reach")
    return a_record(label, on, lineage, lineage_of(recipe, on, "frames/unseen"), scores)


def keep(folder: Path, *some: Record) -> Path:
    """Write records without a check."""
    for one in some:
        write_record(one, folder)
    return folder


def by_label(*some: Record) -> dict[str, list[Record]]:
    """Records by label, as from read_records."""
    records: dict[str, list[Record]] = {}
    for one in some:
        records.setdefault(one.artifact, []).append(one)
    return records
