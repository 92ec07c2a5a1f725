"""The command that probes encoders: frames and features, errors, and one real run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.envs import metaworld
from datasets.errors import FoveaError
from datasets.shards import FrameSet, write_shard
from pipeline.commands import probe
from pipeline.runtime import artifact
from pretrain.encoder import Encoder, EncoderConfig, EncoderFeatures, Obs
from pretrain.encoders import mae, multimae, pixels
from pretrain.frozen import load_encoder, save_encoder
from pretrain.saliency import centre
from tests.pipeline.conftest import Project

SHAPE = (3, 32, 32)
PROBED = """
frames:
  reach: {env: metaworld/reach, source: expert, count: 64, streams: 8, random: 0.5}
  other: {env: metaworld/reach, source: expert, count: 48, streams: 6, seed: 1}
annotations: {}
predictors: {}
saliency: {}
encoders:
  reach-mae: {data: frames/reach, model: mae, patch: 16, epochs: 1, warmup_epochs: 0}
  reach-pixels: {data: frames/reach, model: pixels}
policies: {}
exams: {}
"""


def frames(count: int = 40, episode: int = 5) -> FrameSet:
    """Frames of two streams whose points move to the border and beyond."""
    generator = np.random.default_rng(0)
    points = generator.uniform(-2, 34, (count, 3, 2)).astype(np.float32)
    flags = np.zeros(count, np.bool_)
    return FrameSet(
        images=generator.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8),
        action=np.zeros((count, 4), np.float32),
        reward=np.zeros(count, np.float32),
        terminated=flags,
        truncated=flags,
        episode=(np.arange(count) % (count // 2) // episode).astype(np.int32),
        step=(np.arange(count) % episode).astype(np.int32),
        stream=np.repeat(np.arange(2), count // 2).astype(np.int32),
        info={"points": points, "state": generator.normal(size=(count, 39))},
    )


def test_points_are_those_of_the_environment() -> None:
    assert probe.POINTS == metaworld.POINTS
    task = metaworld.single(metaworld.Config("reach"), 0, 0)
    _, info = task.reset()
    hand, thing, goal = (info["state"][at] for at in probe.WORLD.values())
    assert np.allclose(hand, task._task.get_endeff_pos())
    assert np.allclose(thing, task._task._get_pos_objects()[:3])
    assert np.allclose(goal, task._task._target_pos)


def test_frames_without_all_points_are_left_out() -> None:
    whole = frames()
    scene = probe.scene_of(whole, "frames/x")
    points = cast(Any, whole.info["points"])
    inside = np.array([all(0 <= v <= 32 for v in one.ravel()) for one in points])
    assert 0 < scene.left_out == (~inside).sum() < len(whole)
    assert (scene.images == whole.images[inside]).all()
    assert (scene.places["image object"] == points[inside, 1]).all()
    assert np.allclose(scene.places["world goal"], whole.info["state"][inside, 36:39], atol=1e-6)
    named = {*zip(whole.stream[inside], whole.episode[inside], scene.episodes, strict=True)}
    assert len(named) == len(set(scene.episodes.tolist())) == len({(s, e) for s, e, _ in named})


def test_rows_are_spread_over_all_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "ROWS", 10)
    whole = frames()
    whole.info["points"] = np.full((40, 3, 2), 5, np.float32)
    scene = probe.scene_of(whole, "frames/x")
    assert len(scene.images) == 10 and scene.left_out == 0
    assert (scene.images[[0, -1]] == whole.images[[0, -1]]).all()


def test_frames_without_points_and_too_few_episodes_are_refused() -> None:
    atari = frames()
    del atari.info["points"]
    with pytest.raises(FoveaError, match=r"frames/x: its frames have no points"):
        probe.scene_of(atari, "frames/x")
    few = frames(count=12, episode=6)
    few.info["points"] = np.full((12, 3, 2), 5, np.float32)
    with pytest.raises(FoveaError, match=r"frames/x: 2 episodes .*more `streams`"):
        probe.scene_of(few, "frames/x")


@dataclasses.dataclass(frozen=True)
class Features(EncoderFeatures):
    pool: str = "mean"
    use_saliency: bool = True


@dataclasses.dataclass(frozen=True)
class Config(EncoderConfig):
    maps: bool

    @property
    def needs_saliency(self) -> bool:
        return self.maps


class Fake(Encoder):
    """An encoder that can select tokens."""

    max_tokens, dim = 1, 4

    def __init__(self, *, saliency: bool = False) -> None:
        super().__init__(Config(saliency), Features(), SHAPE)


def test_an_encoder_has_the_readings_of_its_kind() -> None:
    ways = {way.name: (way.features, way.row) for way in probe.readings(Fake(saliency=True))}
    assert ways == {
        "pooled": ({"pool": "none"}, "mean"),
        "tokens": ({"pool": "none"}, "flat"),
        "global token": ({"pool": "none"}, "last"),
        "image alone": ({"use_saliency": False}, "mean"),
    }
    own = Fake()
    own.features = Features(pool="global")
    assert probe.readings(own)[0].row == "last"
    assert "image alone" not in [way.name for way in probe.readings(Fake())]


def test_a_pooled_row_is_the_mean_of_the_tokens_without_padding() -> None:
    x = torch.arange(24.0).reshape(2, 3, 4)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    obs: Obs = {"x": x, "mask": mask, "pos": torch.zeros(2, 3, dtype=torch.int64)}
    expected: Tensor = torch.stack([x[0, :2].mean(0), x[1].mean(0)])
    assert torch.equal(probe._row(obs, "mean"), expected)
    assert torch.equal(probe._row(obs, "flat"), x.reshape(2, 12))
    assert torch.equal(probe._row(obs, "last"), x[:, 2])
    image = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    assert probe._row({"image": image}, "flat").tolist() == [[0, 1]]


def test_an_encoder_that_selects_is_probed_on_all_patches(tmp_path: Path) -> None:
    config = mae.Config(patch=8, dim=16, depth=1, heads=2, decoder_dim=16, decoder_heads=2)
    save_encoder(mae.Pretraining(config, SHAPE).encoder(mae.Features()), tmp_path)
    images = frames().images[:20]
    readings = dict(probe.features_of("x", str(tmp_path), images, {}))
    assert {name: rows.shape for name, rows in readings.items()} == {
        "pooled": (20, 16),
        "tokens": (20, 16 * 16),
    }
    whole = load_encoder(tmp_path, features={"select": "all"})
    batch = torch.from_numpy(images[:1]).permute(0, 3, 1, 2).contiguous()
    assert np.allclose(
        readings["tokens"][0], whole(batch)["x"].detach().flatten().numpy(), atol=1e-6
    )
    with pytest.raises(FoveaError, match=r"encoders/x: is for images \(3, 32, 32\)"):
        list(probe.features_of("x", str(tmp_path), images[:, :16], {}))


def test_each_map_is_computed_once(tmp_path: Path) -> None:
    """For all readings, and for the next encoder that carries the same source."""
    config = multimae.Config(dim=16, depth=1, heads=2, decoder_dim=16, decoder_heads=2)
    shape, cache = (3, 32, 32), dict[bytes, Tensor]()
    encoder = multimae.Pretraining(config, shape).encoder(
        saliency=centre.Saliency(centre.Config(), shape)
    )
    save_encoder(encoder, tmp_path)
    images = frames().images[:20]
    once = dict(probe.features_of("x", str(tmp_path), images, cache))
    assert len(cache) == len(images)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    for reading, features in (("pooled", {}), ("global token", {"pool": "global"}),
                              ("image alone", {"use_saliency": False})):  # fmt: skip
        plain = load_encoder(tmp_path, features=features)(batch)
        assert np.allclose(once[reading], plain["x"][:, 0].numpy(), atol=1e-6)
    cache.update((key, torch.zeros_like(value)) for key, value in cache.items())
    again = dict(probe.features_of("x", str(tmp_path), images, cache))
    assert not np.allclose(again["pooled"], once["pooled"], atol=1e-6)
    assert np.array_equal(again["image alone"], once["image alone"])


def seal(root: Path, label: str, entry: dict[str, Any], *sources: str) -> str:
    inputs = {source: artifact.open_artifact(source, root).digest for source in sources}
    (root / label).mkdir(parents=True, exist_ok=True)
    artifact.seal(root / label, label, entry=entry, inputs=inputs, metrics={})
    return artifact.open_artifact(label, root).digest


def test_the_lineage_ends_at_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / artifact.ROOT
    monkeypatch.chdir(tmp_path)
    first = seal(root, "frames/a", {})
    seal(root, "predictors/a", {"size": 2}, "frames/a")
    seal(root, "saliency/a", {}, "frames/a", "predictors/a")
    last = seal(root, "encoders/a", {}, "saliency/a")
    readings = artifact.lineage("encoders/a")
    assert set(readings) == {"encoders/a", "saliency/a", "predictors/a", "frames/a"}
    assert readings["encoders/a"]["digest"] == last and readings["frames/a"]["digest"] == first
    assert readings["predictors/a"]["entry"] == {"size": 2}
    assert probe.frames_of(readings) == "frames/a"
    seal(root, "predictors/a", {"size": 3}, "frames/a")
    with pytest.raises(FoveaError, match=r"a: not made from the current predictors/a.*label@a"):
        artifact.lineage("encoders/a")


def test_the_command_writes_its_scores(project: Project) -> None:
    (project.folder / "params.yaml").write_text(PROBED)
    root, whole = project.artifacts, frames(80)
    for name in ("reach", "other"):
        (root / "frames" / name).mkdir(parents=True)
        for stream, start in ((0, 0), (1, 40)):
            path = root / "frames" / name / f"{stream:03d}-00000.tar"
            write_shard(path, list(whole)[start : start + 40], stream=stream, start=0)
        seal(root, f"frames/{name}", {"name": name})
    config = mae.Config(patch=16, dim=16, depth=1, heads=2, decoder_dim=16, decoder_heads=2)
    for name, encoder in (
        ("reach-mae", mae.Pretraining(config, SHAPE).encoder(mae.Features())),
        ("reach-pixels", pixels.Encoder(pixels.Config(), pixels.Features(), SHAPE)),
    ):
        save_encoder(encoder, root / "encoders" / name)
        seal(root, f"encoders/{name}", {"data": "frames/reach"}, "frames/reach")
    output = project.built("commands.probe", "reach-mae", "reach-pixels", "--frames", "other")
    own, plain = (
        json.loads((root / f".runs/measured/encoders/{name}-on-other.json").read_text())
        for name in ("reach-mae", "reach-pixels")
    )
    readings, others = own["scores"]["readings"], plain["scores"]["readings"]
    pairs = [(way, f"{way}, all frames") for way in ("pooled", "tokens", "pixels")]
    assert list(readings) == ["mean of the rest", *pairs[0], *pairs[1]]
    assert list(others) == ["mean of the rest", *pairs[2]]
    assert all(readings[few] == readings[every] for few, every in pairs[:2])  # 80 frames
    assert readings["mean of the rest"] == others["mean of the rest"]
    assert set(own["made_from"]) == {"encoders/reach-mae", "frames/reach"}
    assert list(own["measured_on"]) == ["frames/other"]
    assert own["scores"]["rows"] + own["scores"]["left_out"] == 80
    assert own["scores"]["splits"] == [0, 1, 2]
    for scores in readings.values():
        assert set(scores) == {f"image {one}" for one in probe.POINTS} | {
            f"world {one}" for one in probe.WORLD
        }
        assert all(len(one["error"]) == 3 and min(one["error"]) > 0 for one in scores.values())
    run = json.loads((root / ".runs/probe-reach-mae.json").read_text())
    assert run["machine"] and "commit" in run
    assert "encoders/reach-mae: " in output and "pooled: image tip" in output
