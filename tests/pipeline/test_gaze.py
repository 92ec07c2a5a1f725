"""From recordings with gaze to an exam: the stages `collect`, `annotate`, `fit` and `exam`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.recordings import FOLDER
from datasets.saliency import read_saliency
from datasets.shards import read_frames
from pipeline import annotate, collect, exam, fit, params
from pipeline.parts.exams import read_exam
from pipeline.parts.labelled import read_labelled, read_points
from pipeline.runtime.artifact import open_artifact, publish, seal
from pipeline.runtime.stage import Stage
from tests.datasets.recorded import recorded, write_zip

PARAMS = """
frames:
  head: {env: "atari/Breakout?screen=gray84", source: atari_head, count: 24}
annotations:
  gaze: {frames: head, annotator: gaze, count: 20}
predictors:
  motion: {data: frames/head, model: motion}
saliency: {}
encoders: {}
policies: {}
exams:
  motion: {truth: annotations/gaze, by: predictors/motion}
"""
STAGES: dict[str, Callable[[Stage], Mapping[str, Any]]] = {
    "frames/head": collect.run,
    "annotations/gaze": annotate.run,
    "predictors/motion": fit.run,
    "exams/motion": exam.run,
}


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The metrics of each stage, in a folder with their artifacts."""
    results: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("gaze")
        patch.chdir(folder)
        Path("params.yaml").write_text(PARAMS)
        write_zip(FOLDER, [recorded(1, 60), recorded(2, 60)])
        for label, run in STAGES.items():
            entry = params.load().entry(*label.split("/"))
            inputs = {key: open_artifact(of) for key, of in entry.inputs().items()}
            stage = Stage(label.split("/")[0], entry, inputs, Path("work") / label)
            stage.folder.mkdir(parents=True)
            results[label] = dict(run(stage))
            digests = {artifact.label: artifact.digest for artifact in inputs.values()}
            seal(stage.out, label, entry=entry.resolved(), inputs=digests, metrics=results[label])
            publish(stage.out, label)
    return results | {"folder": folder}


def test_the_whole_way(metrics: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(metrics["folder"])
    assert metrics["frames/head"]["frames"] == 24
    assert metrics["annotations/gaze"]["annotators"] == "gaze"
    assert metrics["annotations/gaze"]["clicks_per_frame"] > 4
    scored = metrics["exams/motion"]
    assert {"nss", "kl", "shuffled_auc"} & scored.keys() and scored["frames"] == 20
    result = read_exam(Path("artifacts/exams/motion"))
    for row in (*result.controls.values(), result.seeds[0].source, result.seeds[0].shuffled):
        assert "nss" in row.fixations
    assert result.controls["zero"].fixations["nss"] == (None, 0, ())
    assert result.controls["uniform"].fixations["kl"][1] == 20


def test_points_are_read_from_the_frames(
    metrics: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second copy of them is stored; each annotated frame has its own samples."""
    monkeypatch.chdir(metrics["folder"])
    data = open_artifact("annotations/gaze")
    assert not (data.folder / "clicks.json").exists()
    labelled = read_labelled(data)
    frames = read_frames(Path("artifacts/frames/head"))
    for points, index in zip(read_points(data, labelled), labelled.indices.tolist(), strict=True):
        assert len(points) == frames.info["gaze"][index, :, 2].sum() > 0
    indices, maps = read_saliency(data.folder, frames, data.files)
    assert np.array_equal(indices, labelled.indices) and (maps.max((1, 2)) == 255).all()
