"""Pretraining on labelled frames: the encoder carries the source that made its maps."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.errors import FoveaError
from datasets.saliency import write_saliency_shard
from datasets.shards import read_frames, write_shard
from pipeline import fit, label, params, pretrain
from pipeline.runtime import artifact
from pipeline.runtime.stage import Stage
from pretrain.frozen import load_encoder
from tests.datasets.test_shards import frames as noise
from tests.pipeline.conftest import run_here

TINY = """
frames:
  reach: {env: metaworld/reach, source: random, count: 12}
  upright: {env: metaworld/reach?view=upright, source: random, count: 12}
  pong: {env: atari/Pong, source: random, count: 12}
annotations: {}
predictors:
  motion: {data: frames/reach, model: motion}
  centre: {data: frames/reach, model: centre}
saliency:
  motion: {frames: reach, by: predictors/motion}
  centre: {frames: reach, by: predictors/centre}
encoders:
  multimae: {data: saliency/motion, model: multimae, dim: 8, depth: 1, heads: 2, decoder_dim: 8,
             decoder_depth: 1, decoder_heads: 2, batch_size: 6, epochs: 1, warmup_epochs: 0}
  rgbs: {data: saliency/centre, model: channels}
  plain: {data: saliency/centre, model: pixels}
policies: {}
exams: {}
"""


def build(name: str, entry: str, run: Any) -> Mapping[str, Any]:
    """Run one stage in this process and publish its artifact."""
    checked = params.load()
    table = {"fit": "predictors", "label": "saliency", "pretrain": "encoders"}[name]
    inputs = {
        key: artifact.open_artifact(value)
        for key, value in checked.entry(table, entry).inputs().items()
    }
    folder = Path("work")
    folder.mkdir()
    stage = Stage(name, checked.entry(table, entry), inputs, folder)
    metrics: Mapping[str, Any] = run(stage)
    digests = {a.label: a.digest for a in inputs.values()}
    artifact.seal(stage.out, f"{table}/{entry}", entry={}, inputs=digests, metrics=metrics)
    artifact.publish(stage.out, f"{table}/{entry}")
    shutil.rmtree(folder)
    return metrics


def collect(seed: int, size: int = 64) -> None:
    out = Path("artifacts/frames/reach")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_shard(out / "000-00000.tar", noise(12, seed, size=size), stream=0, start=0)
    entry = {"env": "metaworld/reach", "source": "expert"}
    artifact.seal(out, "frames/reach", entry=entry, inputs={}, metrics={})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(TINY)
    collect(seed=0)
    for word in ("motion", "centre"):
        build("fit", word, fit.run)
        build("label", word, label.run)
    return tmp_path


def test_labelled_shards_are_not_labelled_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted stage continues with the first missing shard."""
    calls: list[list[int]] = []
    real = write_saliency_shard

    def counted(path: Any, frames: Any, indices: Any, maps: Any) -> None:
        calls.append(indices.tolist())
        real(path, frames, indices, maps)

    monkeypatch.setattr(label, "write_saliency_shard", counted)
    monkeypatch.setattr(label, "run_parallel", run_here)
    monkeypatch.setattr(label, "SHARD", 5)
    entry = params.load().entry("saliency", "motion")
    inputs = {key: artifact.open_artifact(value) for key, value in entry.inputs().items()}
    stage = Stage("label", entry, inputs, project)
    label.run(stage)
    shards = [list(range(5)), list(range(5, 10)), [10, 11]]
    assert calls == shards
    before = {path.name: path.read_bytes() for path in stage.out.glob("*.tar")}
    for path in sorted(stage.out.glob("*.tar"))[1:]:
        path.unlink()
    calls.clear()
    label.run(stage)
    assert calls == shards[1:]
    assert {path.name: path.read_bytes() for path in stage.out.glob("*.tar")} == before


def test_a_source_for_another_size_is_refused(project: Path) -> None:
    collect(seed=0, size=32)
    shutil.rmtree("work", ignore_errors=True)
    before = Path("artifacts/saliency/motion/manifest.json").read_bytes()
    message = r"predictors/motion: is for images \(3, 64, 64\), these frames are \(3, 32, 32\)"
    with pytest.raises(FoveaError, match=message):
        build("label", "motion", label.run)
    assert Path("artifacts/saliency/motion/manifest.json").read_bytes() == before


@pytest.mark.slow
def test_an_encoder_carries_the_source_that_labelled(project: Path) -> None:
    """Another source needs a change of one name; an encoder that needs no maps takes the frames."""
    image = torch.from_numpy(read_frames(Path("artifacts/frames/reach")).images)
    image = image.permute(0, 3, 1, 2).contiguous()
    metrics = build("pretrain", "multimae", pretrain.run)
    assert metrics["frames"] == 12 and metrics["steps"] == 2 and np.isfinite(metrics["loss"])
    folder = Path("artifacts/encoders/multimae")
    written = ("config.json", "model.safetensors", "encoder.pt2", "curve.csv", "panels.png")
    assert all((folder / name).is_file() for name in written)
    before, first = {name: (folder / name).read_bytes() for name in written}, load_encoder(folder)
    build("pretrain", "multimae", pretrain.run)
    assert before == {name: (folder / name).read_bytes() for name in written}
    Path("params.yaml").write_text(TINY.replace("data: saliency/motion", "data: saliency/centre"))
    build("pretrain", "multimae", pretrain.run)
    second: Any = load_encoder(folder)
    assert not torch.equal(first(image)["x"], second(image)["x"])
    maps = second.saliency_map(image)
    assert torch.equal(maps[0], maps[1]), "not the centre's"
    build("pretrain", "rgbs", pretrain.run)
    rgbs = load_encoder("artifacts/encoders/rgbs")(image)["image"]
    assert torch.equal(rgbs[:, :3], image) and torch.equal(rgbs[:, 3:], (maps * 255).round().byte())
    build("pretrain", "plain", pretrain.run)
    assert torch.equal(load_encoder("artifacts/encoders/plain")(image)["image"], image)


def test_labels_of_frames_that_were_collected_again_are_refused(project: Path) -> None:
    collect(seed=5)
    new = artifact.open_artifact("frames/reach").digest
    with pytest.raises(FoveaError, match=rf"frames/reach.*now {new}.*label@centre"):
        build("pretrain", "rgbs", pretrain.run)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "data: saliency/motion, model: multimae",
            "data: frames/reach, model: multimae",
            r"encoders\.multimae\.data: frames/reach has no saliency maps",
        ),
        (
            "data: saliency/centre, model: channels",
            "data: frames/reach, model: channels",
            r"encoders\.rgbs\.data: frames/reach has no saliency maps",
        ),
        ("dim: 8, depth", "patch: 7, dim: 8, depth", r"multimae\.patch: 7 does not divide"),
        ("model: channels", "model: channels, channels: rgba", r"rgbs.*channels: 'rgba'"),
        ("epochs: 1,", "epochs: 1, features: {pool: max},", r"multimae\.features.*pool: 'max'"),
        (
            "centre: {data: frames/reach, model: centre",
            "centre: {data: frames/reach, model: student",
            r"predictors\.centre\.data: student is trained on maps, but frames/reach has none",
        ),
        (
            "motion: {frames: reach, by",
            "motion: {frames: upright, by",
            r"saliency\.motion\.by: view is upright in frames/upright, but reference in predictors/"
            r"motion's own frames; write \?view=reference in frames/upright, or",
        ),
        (
            "motion: {frames: reach, by",
            "motion: {frames: pong, by",
            r"saliency\.motion\.by: predictors/motion is for images \(3, 64, 64\), .*96, 96",
        ),
    ],
)
def test_misfits_are_refused_before_any_work(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in TINY
    (tmp_path / "params.yaml").write_text(TINY.replace(old, new))
    with pytest.raises(FoveaError, match=says):
        params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "entry",
    [
        "{data: frames/reach, model: multimae, modalities: rgb}",
        "{data: frames/reach, model: channels, channels: rgb}",
        "{data: saliency/centre, model: multimae, modalities: rgb}",
        "{data: saliency/centre, model: mae}",
    ],
)
def test_rgb_alone_needs_no_maps(tmp_path: Path, entry: str) -> None:
    (tmp_path / "params.yaml").write_text(TINY.replace("policies:", f"  x: {entry}\npolicies:"))
    assert params.load(tmp_path / "params.yaml").entry("encoders", "x")
