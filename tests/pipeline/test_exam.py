"""The stage `exam`: every kind of source, on frames whose objects are known, beside controls."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from datasets.annotation.choice import keys
from datasets.annotation.maps import heat_map
from datasets.errors import FoveaError
from datasets.frame import Frame
from datasets.saliency import read_saliency, write_saliency_shard
from datasets.sealed import write_sealed
from datasets.shards import FrameSet, read_frames, write_shard
from pipeline import exam, fit, label, params
from pipeline.commands import pictured
from pipeline.parts import watched
from pipeline.parts.controls import others
from pipeline.parts.exams import Exam, read_exam
from pipeline.parts.labelled import read_labelled, read_points
from pipeline.parts.maps import predict
from pipeline.parts.policies import fresh_policy, spec_of
from pipeline.parts.scores import scores_of_maps
from pipeline.runtime.artifact import Artifact, open_artifact, publish, seal
from pipeline.runtime.stage import Stage
from pretrain import figures
from pretrain.encoders import attention, mae, transporter
from pretrain.frozen import load_encoder, load_saliency, save_encoder
from pretrain.metrics.keypoints import detection, keypoints
from rl.occlusion import changes
from rl.policy import Policy, save_policy
from rl.watch import watch
from tests.pipeline.conftest import run_here

ENV = '"atari/MsPacman?screen=gray84"'
PARAMS = f"""
frames:
  taught: {{env: {ENV}, source: random, count: 12}}
  pac: {{env: {ENV}, source: random, count: 40}}
annotations:
  pac: {{frames: pac, annotator: objects, count: 30}}
  taught: {{frames: taught, annotator: objects, count: 5}}
  clicks: {{frames: taught, annotator: simulated, count: 5}}
predictors:
  motion: {{data: frames/taught, model: motion}}
  centre: {{data: annotations/clicks, model: centre}}
saliency:
  masked: {{frames: pac, by: policies/masked}}
encoders:
  mask: {{data: frames/taught, model: attention}}
  points: {{data: frames/taught, model: transporter, filters: 4}}
  error: {{data: frames/taught, model: mae, patch: 12, dim: 8, depth: 1, heads: 2, decoder_dim: 8,
          decoder_depth: 1, decoder_heads: 2}}
policies:
  masked: {{env: {ENV}, encoder: mask, agent: a2c, seeds: 3}}
exams:
  motion: {{truth: annotations/pac, by: predictors/motion, keypoints: 7}}
  mask: {{truth: annotations/pac, by: encoders/mask, keypoints: 7}}
  ten: {{truth: annotations/pac, by: encoders/mask, keypoints: 10}}
  points: {{truth: annotations/pac, by: encoders/points, keypoints: 7}}
  error: {{truth: annotations/pac, by: encoders/error, keypoints: 7}}
  masked: {{truth: annotations/pac, by: policies/masked, keypoints: 7}}
  plain: {{truth: annotations/pac, by: predictors/motion}}
"""
SOURCES = {
    "motion": "predictors/motion",
    "mask": "encoders/mask",
    "points": "encoders/points",
    "error": "encoders/error",
    "masked": "policies/masked",
}


def stage_of(label: str, folder: Path) -> Stage:
    entry = params.load().entry(*label.split("/"))
    inputs = {key: open_artifact(of) for key, of in entry.inputs().items()}
    folder.mkdir(parents=True, exist_ok=True)
    return Stage(label.split("/")[0], entry, inputs, folder)


def build(label: str, run: Callable[[Stage], Mapping[str, Any]]) -> dict[str, Any]:
    """Build an artifact as its stage does, in the current folder."""
    stage = stage_of(label, Path("work") / label)
    metrics = dict(run(stage))
    digests = {artifact.label: artifact.digest for artifact in stage.inputs.values()}
    seal(stage.out, label, entry=stage.entry.resolved(), inputs=digests, metrics=metrics)
    publish(stage.out, label)
    return metrics


def places(number: int) -> list[tuple[int, int]]:
    """Row and column, of seven, of the two objects in a frame, which move."""
    return [(1, number % 7), (5, (2 * number + 3) % 7)]


def collect(stage: Stage) -> dict[str, Any]:
    """Two streams of frames in gray with bright objects, on noise."""
    rng = np.random.default_rng(0)
    half = stage.entry.keys.count // 2
    for stream in range(2):
        frames = []
        for step in range(half):
            image = rng.integers(0, 60, (84, 84, 1), np.uint8)
            for row, column in places(step):
                image[12 * row + 2 : 12 * row + 10, 12 * column + 2 : 12 * column + 10] = 250
            frames.append(Frame(image, 0, 0.0, False, False, 0, step))
        write_shard(stage.out / f"{stream:03d}-00000.tar", frames, stream=stream, start=0)
    return {}


def annotate(stage: Stage) -> dict[str, Any]:
    frames = read_frames(stage.inputs["frames"].folder)
    count = stage.entry.keys.count
    chosen = np.sort(np.random.default_rng(1).permutation(len(frames))[:count])
    points = {
        i: np.array([[(c + 0.5) / 7, (r + 0.5) / 7] for r, c in places(int(frames.step[i]))]) * 400
        for i in chosen.tolist()
    }
    for stream in np.unique(frames.stream[chosen]).tolist():
        mine = chosen[frames.stream[chosen] == stream]
        maps = np.stack([heat_map(points[i], 84, 84) for i in mine.tolist()])
        write_saliency_shard(stage.out / f"{stream:03d}-00000.tar", frames, mine, maps)
    key = keys(frames)
    clicks = {"objects": {key[i]: at.tolist() for i, at in points.items()}}
    (stage.out / "clicks.json").write_text(json.dumps(clicks))
    return {}


def encoder(stage: Stage) -> dict[str, Any]:
    config, shape = stage.entry.config, (1, 84, 84)
    module: Any = {"attention": attention, "transporter": transporter, "mae": mae}[
        stage.entry.keys.model
    ]
    torch.manual_seed(0)
    save_encoder(module.Pretraining(config, shape).encoder(), stage.out)
    return {"frames": 12}


def policy(stage: Stage) -> dict[str, Any]:
    """Three seeds, one of which failed before it kept any weights."""
    spec, frozen = spec_of(stage.entry), load_encoder(stage.inputs["encoder"].folder)
    save_policy(spec, frozen, stage.out)
    for seed in range(3):
        folder = stage.out / f"seed-{seed}"
        folder.mkdir()
        for step in (80, 160) if seed != 1 else ():
            weights = fresh_policy(spec, frozen, seed + step).agent.policy.state_dict()
            save_file(weights, folder / f"weights-{step:07d}.safetensors")
    return {"seeds": 3, "failed": 1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exam")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("params.yaml").write_text(PARAMS)
        for name in ("taught", "pac"):
            build(f"frames/{name}", collect)
        for name in ("pac", "clicks"):
            build(f"annotations/{name}", annotate)
        for name in ("motion", "centre"):
            build(f"predictors/{name}", fit.run)
        for name in ("mask", "points", "error"):
            build(f"encoders/{name}", encoder)
        build("policies/masked", policy)
    return folder


@pytest.fixture
def project(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def truth() -> tuple[Artifact, Any, list[Any]]:
    opened = open_artifact("annotations/pac")
    labelled = read_labelled(opened)
    return opened, labelled, [at / 200 - 1 for at in read_points(opened, labelled)]


def maps_of(name: str) -> dict[int | None, np.ndarray]:
    """The maps of a source, each seed's, as the source itself gives them."""
    _, labelled, _ = truth()
    folder = open_artifact(SOURCES[name]).folder
    if name != "masked":
        return {None: predict(load_saliency(folder), labelled.columns(np.arange(30))["image"])}
    entry = params.load().entry("policies", "masked")
    maps: dict[int | None, np.ndarray] = {}
    for seed in (0, 2):  # the last weights of each
        policy = fresh_policy(spec_of(entry), load_encoder(folder / "encoder"), seed + 160)
        all_maps = [one for stream in range(2) for one in watch(policy, labelled.frames, stream)]
        maps[seed] = np.stack(all_maps)[labelled.indices]
    return maps


@pytest.mark.parametrize("name", SOURCES)
def test_scores_are_those_of_the_source_s_maps_and_keypoints(project: Path, name: str) -> None:
    metrics = build(f"exams/{name}", exam.run)
    result = read_exam(open_artifact(f"exams/{name}").folder)
    assert (result.truth, result.by) == ("annotations/pac", SOURCES[name])
    assert (result.frames, result.keypoints) == (30, 7)
    _, labelled, objects = truth()
    expected = maps_of(name)
    assert [seed.seed for seed in result.seeds] == list(expected)
    for seed in result.seeds:
        maps = expected[seed.seed]
        assert seed.source.maps == pytest.approx(scores_of_maps(maps, labelled.maps))
        points = keypoints(torch.from_numpy(maps)[:, None], 7)
        if name == "points":  # those that it learned
            image = torch.from_numpy(labelled.columns(np.arange(30))["image"])
            own = load_encoder(open_artifact("encoders/points").folder)
            learned = own.keypoints(image.permute(0, 3, 1, 2).contiguous())
            assert learned is not None
            points = list(learned.double().numpy())
        assert seed.source.points is not None and seed.shuffled.points is not None
        for score in detection(points, objects):
            counts = [score.hits, score.objects, score.keypoints]
            assert seed.source.points["curve"][f"{score.epsilon:.2f}"] == counts
        assert seed.shuffled.maps == pytest.approx(scores_of_maps(maps[others(30)], labelled.maps))
    assert metrics["mae"] == pytest.approx(np.mean([s.source.maps["mae"] for s in result.seeds]))
    assert (metrics.get("seeds"), "recall" in metrics) == (2 if name == "masked" else None, True)


def test_a_source_that_sees_the_objects_is_far_above_every_control(project: Path) -> None:
    build("exams/motion", exam.run)
    result = read_exam(open_artifact("exams/motion").folder)
    (seed,) = result.seeds
    rows = {name: row.points for name, row in result.controls.items()}
    assert list(rows) == ["zero", "centre", "uniform", "random", "motion"]
    assert all(rows.values()) and seed.source.points and seed.shuffled.points
    assert seed.source.points["recall"] == 1 == result.objects["ceiling"]
    assert result.objects["objects_per_frame"] == 2
    for name in ("zero", "centre", "uniform", "random"):
        points = rows[name]
        assert points and points["recall"] < 0.8, name
    assert seed.shuffled.points["recall"] < 0.5
    scores = result.scores(seed)
    maps = {"f_max", "zero_mae", "centre_f_max", "shuffled_mae", "motion_mae"}
    assert maps <= scores["judged"].keys()
    assert scores["detected"]["uniform"] == rows["uniform"]
    assert scores["looked"]["motion"]["nss"][:2] == list(
        result.controls["motion"].fixations["nss"][:2]
    )
    assert scores["looked"]["source"]["nss"][1:] == [30, list(seed.source.fixations["nss"][2])]


def test_a_policy_labels_frames_by_the_attention_of_its_first_seed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In shards, each of which follows from all frames before it; without a source to copy."""
    monkeypatch.setattr(label, "SHARD", 7)
    processed: list[int] = []

    def counted(policy: Policy, frames: FrameSet, stream: int) -> Iterator[NDArray[np.float32]]:
        for one in watch(policy, frames, stream):
            processed.append(stream)
            yield one

    monkeypatch.setattr(watched, "watch", counted)
    monkeypatch.setattr(label, "run_parallel", run_here)
    metrics = build("saliency/masked", label.run)
    assert len(processed) == 40, "a shard began at the start of its stream again"
    folder = open_artifact("saliency/masked").folder
    frames = read_frames(open_artifact("frames/pac").folder)
    indices, maps = read_saliency(folder, frames)
    assert indices.tolist() == list(range(40)) and metrics["seed"] == 0
    assert not (folder / "source").exists() and (folder / "overlay.png").exists()
    entry = params.load().entry("policies", "masked")
    encoder = load_encoder(open_artifact("policies/masked").folder / "encoder")
    policy = fresh_policy(spec_of(entry), encoder, 160)
    expected = [one for stream in range(2) for one in watch(policy, frames, stream)]
    np.testing.assert_array_equal(maps, np.rint(np.stack(expected) * 255))
    assert maps.std() > 0


def test_a_policy_has_uniform_attention_and_occlusion_beside_its_maps(project: Path) -> None:
    """By its last weights; of maps of one value no cell is removed."""
    build("exams/masked", exam.run)
    result = read_exam(open_artifact("exams/masked").folder)
    _, labelled, _ = truth()
    frozen = load_encoder(open_artifact("policies/masked").folder / "encoder")
    spec = spec_of(params.load().entry("policies", "masked"))
    for seed in result.seeds:
        assert seed.uniform is not None and seed.uniform.points is not None
        assert seed.uniform.fixations["nss"] == (None, 0, ())
        names = ["source", "shuffled", "uniform_attention", "random", "centre", "motion"]
        assert list(seed.occlusion) == names
        assert seed.seed is not None
        policy = fresh_policy(spec, frozen, seed.seed + 160)
        maps = np.stack([maps_of("masked")[seed.seed]])
        changed = changes(policy, labelled.frames, labelled.indices, maps)[0].mean(0)
        kl, value = (seed.occlusion["source"][f"occlusion_{key}"] for key in ("kl", "value"))
        assert (kl.mean, value.mean) == pytest.approx(tuple(changed), rel=1e-3)
        assert (kl.defined, len(kl.recordings)) == (30, 2)
        assert seed.occlusion["uniform_attention"]["occlusion_kl"].defined == 0
        looked = result.scores(seed)["looked"]
        assert looked["random"]["occlusion_value"][1] == 30 and "nss" in looked["random"]
    build("exams/mask", exam.run)
    (plain,) = read_exam(open_artifact("exams/mask").folder).seeds
    assert plain.uniform is None and not plain.occlusion


@pytest.mark.parametrize("name", ["mask", "masked"])
def test_the_same_bytes_twice_and_after_an_interruption(
    project: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(f"exams/{name}", exam.run)
    folder = open_artifact(f"exams/{name}").folder
    files = {"exam.json", "pictures.png", "recall.svg", "README.md", "manifest.json"}
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before.keys() == files
    shutil.rmtree(Path("work/exams"))
    asked: list[str] = []

    def killed(path: Path, data: bytes) -> None:
        if len(asked) == 1 and not Path("again").exists():
            raise KeyboardInterrupt
        asked.append(path.name)
        write_sealed(path, data)

    monkeypatch.setattr(exam, "write_sealed", killed)
    with pytest.raises(KeyboardInterrupt):
        build(f"exams/{name}", exam.run)
    Path("again").touch()
    build(f"exams/{name}", exam.run)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    streams = ["000.npy", "001.npy"]
    seeds = [f"seed-{seed}-{one}" for seed in (0, 2) for one in streams]
    assert asked == (streams if name == "mask" else seeds), "something was looked at twice"


def test_maps_in_progress_that_are_damaged_are_made_again(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = stage_of("exams/mask", Path("work/x"))
    exam.run(stage)
    before = (stage.out / "exam.json").read_bytes()
    data = bytearray((stage.folder / "001.npy").read_bytes())
    data[-5] ^= 1
    (stage.folder / "001.npy").write_bytes(data)
    exam.run(stage)
    assert (stage.out / "exam.json").read_bytes() == before
    assert "001.npy: does not match its SHA-256" in capsys.readouterr().err


def test_without_keypoints_maps_alone_are_scored(project: Path) -> None:
    metrics = build("exams/plain", exam.run)
    folder = open_artifact("exams/plain").folder
    result = read_exam(folder)
    assert result.keypoints is None and "recall" not in metrics and not result.objects
    assert all(row.points is None for row in result.controls.values())
    assert not (folder / "recall.svg").exists() and (folder / "pictures.png").stat().st_size > 1000


def test_a_source_that_learned_from_annotations_of_these_frames_is_refused(project: Path) -> None:
    """By the artifacts themselves, whatever params.yaml says now."""
    with pytest.raises(
        FoveaError, match=r"centre: was trained on annotations of frames/taught its"
    ):
        exam.unseen("annotations/clicks", "predictors/centre")
    assert exam.unseen("annotations/pac", "predictors/centre")["count"] == 40
    assert exam.unseen("annotations/clicks", "encoders/mask")["count"] == 12  # no labels learned


def test_a_policy_without_weights_is_refused(project: Path) -> None:
    for weights in Path("artifacts/policies/masked").glob("seed-*/*"):
        weights.unlink()
    seal_again("policies/masked")
    with pytest.raises(FoveaError, match=r"policies/masked: no seed has weights"):
        build("exams/masked", exam.run)


def seal_again(label: str) -> None:
    opened = Path("artifacts") / label
    manifest = json.loads((opened / "manifest.json").read_text())
    (opened / "manifest.json").unlink()
    seal(opened, label, entry=manifest["entry"], inputs=manifest["inputs"], metrics={})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda clicks: clicks["objects"].popitem(),
        lambda clicks: clicks["objects"].update({next(iter(clicks["objects"])): [[1.0]]}),
        lambda clicks: clicks["objects"].update({next(iter(clicks["objects"])): [[1.0, 401.0]]}),
        lambda clicks: clicks.update({"objects": []}),
    ],
)
def test_points_that_are_none_are_refused_by_the_file(
    project: Path, spoil: Callable[[Any], object]
) -> None:
    path = Path("artifacts/annotations/pac/clicks.json")
    clicks = json.loads(path.read_text())
    spoil(clicks)
    path.write_text(json.dumps(clicks))
    seal_again("annotations/pac")
    with pytest.raises(FoveaError, match=r"clicks\.json: not points of these frames"):
        build("exams/mask", exam.run)


@pytest.fixture
def result(project: Path) -> tuple[Path, dict[str, Any]]:
    stage = stage_of("exams/mask", Path("work/x"))
    exam.run(stage)
    return stage.out, json.loads((stage.out / "exam.json").read_text())


def spoiled(value: dict[str, Any], place: str, new: object) -> dict[str, Any]:
    """The value with another one at `seeds.0.source`; it is gone where that is None."""
    part: Any = value
    *way, last = [int(key) if key.isdigit() else key for key in place.split("|")]
    for key in way:
        part = part[key]
    if new is None:
        del part[last]
    else:
        part[last] = new
    return value


@pytest.mark.parametrize(
    ("place", "new"),
    [
        ("frames", None),
        ("keypoints", "many"),
        ("seeds", []),
        ("seeds|0|source|maps|mae", float("inf")),
        ("seeds|0|source|maps", {}),
        ("seeds|0|source|points|recall", "all"),
        ("seeds|0|source|points|curve|0.20", [9, 8, 9]),
        ("seeds|0|shuffled", None),
        ("controls|random|points", None),
        ("controls", []),
        ("objects|ceiling", True),
    ],
)
def test_an_exam_that_is_malformed_is_refused_by_name(
    result: tuple[Path, dict[str, Any]], place: str, new: object
) -> None:
    folder, value = result
    assert isinstance(read_exam(folder), Exam)
    (folder / "exam.json").write_text(json.dumps(spoiled(value, place, new)))
    with pytest.raises(FoveaError, match=r"exam\.json: "):
        read_exam(folder)
    (folder / "exam.json").unlink()
    with pytest.raises(FoveaError, match=r"exam\.json: missing"):
        read_exam(folder)


def test_exams_stand_side_by_side(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In columns of one picture, without being run; of different annotations they are refused."""
    words = ["pictured", "mask=seven", "ten", "plain", "masked", "--frames", "3"]
    monkeypatch.setattr("sys.argv", words)
    pictured.main()
    with Image.open("artifacts/.runs/pictured.png") as picture:
        assert picture.size == (8 + 5 * 200, 8 + 3 * 220)
    entries = params.load()
    rows: list[Any] = []
    monkeypatch.setattr("pretrain.figures.grid", lambda cells, columns: rows.extend(cells))
    pictured.picture([(entries.entry("exams", "plain"), "plain")], 30)
    maps = maps_of("motion")[None]
    assert list(rows[0]) == ["frame", "annotation", "plain"] and len(rows) == 30
    cells = [figures.heat_map(one) for one in maps]
    assert all(np.array_equal(row["plain"], c) for row, c in zip(rows, cells, strict=True))
    text = Path("params.yaml").read_text()
    other = "  other: {truth: annotations/taught, by: encoders/mask}\n"
    Path("params.yaml").write_text(text + other)
    monkeypatch.setattr("sys.argv", ["pictured", "mask", "other"])
    with pytest.raises(SystemExit, match=r"annotations/pac and annotations/taught; name those"):
        pictured.main()
    monkeypatch.setattr("sys.argv", ["pictured", "mask", "--frames", "0"])
    with pytest.raises(SystemExit, match=re.escape("--frames: 0, must be at least 1")):
        pictured.main()
