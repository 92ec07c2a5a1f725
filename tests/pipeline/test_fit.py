"""Predictors fitted, scored, and used to label, in a data set of bright spots on noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.errors import FoveaError
from datasets.frame import Frame
from datasets.saliency import read_saliency, write_saliency_shard
from datasets.shards import read_frames, write_shard
from pipeline import fit, label, params
from pipeline.parts.labelled import read_labelled
from pipeline.runtime.artifact import open_artifact, publish, seal
from pipeline.runtime.stage import Stage
from pretrain.encoders import mae
from pretrain.frozen import load_saliency, save_encoder

PARAMS = """
frames:
  spots: {env: atari/MsPacman, source: random, count: 40}
  wide: {env: atari/MsPacman, source: random, count: 4}
annotations:
  spots: {frames: spots, annotator: simulated, count: 30}
  one: {frames: spots, annotator: simulated, count: 1}
predictors:
  picanet: {data: annotations/spots, model: picanet, size: 8, epochs: 1}
  student: {data: annotations/spots, model: student, size: 16, width: 8, epochs: 60, batch_size: 8}
  motion: {data: annotations/spots, model: motion}
  centre: {data: annotations/spots, model: centre}
  random: {data: frames/spots, model: random}
  one: {data: annotations/one, model: student, size: 16, width: 4, epochs: 1}
saliency:
  by-picanet: {frames: spots, by: predictors/picanet}
  by-student: {frames: spots, by: predictors/student}
  by-motion: {frames: spots, by: predictors/motion}
  by-centre: {frames: spots, by: predictors/centre}
  by-random: {frames: spots, by: predictors/random}
  by-mae: {frames: spots, by: encoders/mae}
  wide: {frames: wide, by: predictors/centre}
encoders:
  mae: {data: frames/spots, model: mae, patch: 8, dim: 8, depth: 1, heads: 2, decoder_dim: 8,
        decoder_depth: 1, decoder_heads: 2}
policies: {}
exams: {}
"""
SCORES = {"f_max", "f_adaptive", "mae"}
TRAINABLE = ("picanet", "student")


def build(key: str, run: Callable[[Stage], Mapping[str, Any]]) -> dict[str, Any]:
    """Build an artifact like its stage, in the current folder."""
    table, name = key.split("/")
    entry = params.load().entry(table, name)
    opened = {key: open_artifact(label) for key, label in entry.inputs().items()}
    folder = Path("work") / table / name
    folder.mkdir(parents=True)
    stage = Stage("stage", entry, opened, folder)
    metrics = dict(run(stage))
    digests = {artifact.label: artifact.digest for artifact in opened.values()}
    seal(stage.out, key, entry=entry.resolved(), inputs=digests, metrics=metrics)
    publish(stage.out, key)
    return metrics


def spots(count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames (count, 16, width, 3) and the maps of their spots."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (count, 16, width, 3), np.uint8)
    maps = np.zeros(images.shape[:3], np.uint8)
    for image, marked in zip(images, maps, strict=True):
        row, column = rng.integers(0, 12, 2)
        image[row : row + 4, column : column + 4] = 250
        marked[row : row + 4, column : column + 4] = 255
    return images, maps


def collect(count: int, width: int) -> Callable[[Stage], dict[str, Any]]:
    def run(stage: Stage) -> dict[str, Any]:
        frames = [
            Frame(image, 0, 0.0, False, False, 0, step)
            for step, image in enumerate(spots(count, width)[0])
        ]
        write_shard(stage.out / "000-00000.tar", frames, stream=0, start=0)
        return {}

    return run


def annotate(stage: Stage) -> dict[str, Any]:
    data = stage.inputs["frames"]
    frames, indices = read_frames(data.folder), np.arange(stage.entry.keys.count)
    maps = spots(len(frames), 16)[1][indices]
    write_saliency_shard(stage.out / "000-00000.tar", frames, indices, maps)
    return {}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS)
    build("frames/spots", collect(40, 16))
    build("annotations/spots", annotate)
    return tmp_path


def small_mae(stage: Stage) -> dict[str, Any]:
    save_encoder(mae.Pretraining(stage.entry.config, (3, 16, 16)).encoder(), stage.out)
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["picanet", "student", "motion", "centre", "random", "mae"])
def test_every_source_is_fitted_scored_and_labels(project: Path, name: str) -> None:
    by = f"encoders/{name}" if name == "mae" else f"predictors/{name}"
    if name == "mae":
        build(by, small_mae)
    else:
        metrics = build(by, fit.run)
        beside = ("", "zero_", "centre_", "taught_")
        judged = {f"{which}{score}" for which in beside for score in SCORES}
        assert metrics["frames"] == 40
        assert (judged <= metrics.keys()) == (name != "random")  # its data has no maps
        assert ("steps" in metrics) == (name in TRAINABLE)
        assert (open_artifact(by).folder / "curve.csv").exists() == (name in TRAINABLE)
        if name != "random":
            assert (metrics["maps"], metrics["held_out"]) == (30, 6)
            assert metrics["zero_f_max"] < metrics["centre_f_max"] < 0.6
            assert all(0 <= metrics[key] <= 1 for key in judged)
        if name in ("student", "motion"):
            assert metrics["f_max"] > 0.7 > metrics["centre_f_max"]
            assert metrics["taught_f_max"] > 0.7
        if name == "centre":
            assert {metrics[key] == metrics[f"centre_{key}"] for key in SCORES} == {True}
    build(f"saliency/by-{name}", label.run)
    artifact = open_artifact(f"saliency/by-{name}")
    frames = read_frames(Path("artifacts/frames/spots"))
    indices, maps = read_saliency(artifact.folder, frames)
    assert np.array_equal(indices, np.arange(40))
    source = load_saliency(artifact.folder / "source")
    expected = source(torch.from_numpy(frames.images).permute(0, 3, 1, 2).contiguous())[:, 0]
    assert np.abs(maps / 255 - expected.numpy()).max() <= 0.5 / 255 + 1e-6
    assert (artifact.folder / "overlay.png").stat().st_size > 1000


def test_four_fifths_train_and_one_fifth_validates() -> None:
    for count, validation_count in ((5, 1), (10, 2), (20, 4), (30, 6), (2, 1), (8, 2)):
        training, held_out = fit.split(count)
        assert len(held_out) == validation_count
        assert sorted([*training, *held_out]) == list(range(count))
    assert [part.tolist() for part in fit.split(1)] == [[0], [0]]


def test_one_annotation_is_enough_to_fit(project: Path) -> None:
    build("annotations/one", annotate)
    assert build("predictors/one", fit.run)["held_out"] == 1


def test_maps_of_frames_that_were_built_again_are_refused(project: Path) -> None:
    before = open_artifact("frames/spots").digest
    Path("work/frames/spots").rmdir()
    build("frames/spots", collect(41, 16))
    after = open_artifact("frames/spots").digest
    with pytest.raises(
        FoveaError, match=rf"annotations/spots: .*{before}.*{after}.*build"
    ) as error:
        read_labelled(open_artifact("annotations/spots"))
    assert "frames/spots" in str(error.value)


def test_frames_of_another_size_are_not_labelled(project: Path) -> None:
    build("predictors/centre", fit.run)
    build("frames/wide", collect(4, 24))
    with pytest.raises(FoveaError, match=r"predictors/centre: .*\(3, 16, 16\).*\(3, 16, 24\)"):
        build("saliency/wide", label.run)
