"""Committed weights in place of pretraining, for the same entry and frames only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.errors import FoveaError
from datasets.shards import write_shard
from pipeline import params, pretrain
from pipeline.commands import pretrained
from pipeline.commands.pretrained import FILES, SHARDS
from pipeline.runtime.artifact import Artifact, open_artifact, seal
from pipeline.runtime.stage import Stage
from tests.datasets.test_shards import frames as noise

PARAMS = """
frames:
  pong: {env: atari/Pong, source: random, count: 12}
annotations: {}
predictors: {}
saliency: {}
encoders:
  small: {data: frames/pong, model: mae, patch: 16, dim: 8, depth: 1, heads: 2, decoder_dim: 8,
          decoder_depth: 1, decoder_heads: 2, batch_size: 6, epochs: 1, warmup_epochs: 0}
policies: {}
exams: {}
"""


def collect(seed: int) -> Artifact:
    out = Path("artifacts/frames/pong")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_shard(out / "000-00000.tar", noise(12, seed, size=32), stream=0, start=0)
    entry = {"env": "atari/Pong", "source": "random"}
    seal(out, "frames/pong", entry=entry, inputs={}, metrics={})
    return open_artifact("frames/pong")


def stage(name: str) -> Stage:
    Path(name).mkdir(exist_ok=True)
    entry = params.load().entry("encoders", "small")
    return Stage(name, entry, {"data": open_artifact("frames/pong")}, Path(name))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of committed weights, with the files of an encoder that was pretrained here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "COMMITTED_WEIGHTS", Path("kept"))
    Path("params.yaml").write_text(PARAMS)
    shards = {"000-00000.tar": collect(seed=0).files["000-00000.tar"]}
    pretraining = stage("pretrain")
    metrics = pretrain.run(pretraining)
    seal(
        pretraining.out,
        "encoders/small",
        entry=pretraining.entry.resolved(),
        inputs={},
        metrics=metrics,
    )
    folder = Path("kept/small")
    folder.mkdir(parents=True)
    for name in (*FILES, "manifest.json"):
        shutil.copyfile(pretraining.out / name, folder / name)
    (folder / SHARDS).write_text(json.dumps({"frames/pong": shards}))
    return folder


def test_the_artifact_is_the_pretrained_one(folder: Path) -> None:
    again = stage("pretrained")
    metrics = pretrained.run(again)
    names = sorted(path.name for path in again.out.iterdir())
    assert names == [
        "config.json",
        "curve.csv",
        "encoder.pt2",
        "fovea_encoder.py",
        "images.json",
        "model.safetensors",
        "panels.png",
    ]
    for name in names:
        assert (again.out / name).read_bytes() == (Path("pretrain/out") / name).read_bytes(), name
    assert metrics == json.loads((folder / "manifest.json").read_text())["metrics"]


def other_settings(_: Path) -> None:
    Path("params.yaml").write_text(PARAMS.replace("epochs: 1,", "epochs: 2,"))


def other_frames(_: Path) -> None:
    collect(seed=1)


def damage(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


def remove(folder: Path) -> None:
    folder.rename(folder.with_name("other"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_settings, r"kept/small: pretrained with .*'epochs': 1.* pretrain@small"),
        (other_frames, "kept/small: trained on other shards than artifacts/frames/pong's"),
        (damage, "kept/small/model.safetensors: missing or damaged"),
        (remove, "kept/small/manifest.json: missing; there are weights of other"),
    ],
)
def test_other_settings_frames_and_damage_are_refused(
    folder: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder)
    with pytest.raises(FoveaError, match=message):
        pretrained.run(stage("pretrained"))


def test_the_committed_weights_are_complete() -> None:
    for path in pretrained.COMMITTED_WEIGHTS.glob("*/manifest.json"):
        assert pretrained._manifest(path.parent)["table"] == "encoders"
        assert (path.parent / SHARDS).exists()
