"""Who reads files, one line each. A new reader of files is added to READERS."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from aiohttp.test_utils import TestClient, TestServer

from datasets.annotation import server
from datasets.annotation.click_file import FrameClicks, read_clicks, write_clicks
from datasets.errors import FoveaError
from datasets.files import sha256_file
from datasets.saliency import read_saliency
from datasets.sealed import check_sealed, drop_digests
from datasets.shards import read_frames
from pipeline import params
from pipeline.results.add import run_record
from pipeline.results.html import render
from pipeline.runtime import finished
from pipeline.runtime.artifact import open_artifact, seal
from pipeline.runtime.stage import Stage
from pretrain.encoders import mae
from pretrain.frozen import load_encoder, load_saliency
from pretrain.trainer import fit
from rl import off_policy
from rl.policy import load_policy
from tests.exam.examine import Reader
from tests.rl import fakes

ARTIFACTS = Path("artifacts")
CLICKS = "clicks/alice.json"
KEYS, DIGEST = tuple(f"000-{number:08d}" for number in range(5)), "ab" * 32  # of clicked frames
TINIEST = mae.Config(
    patch=8, dim=8, depth=1, heads=2, decoder_dim=8, decoder_depth=1, decoder_heads=2, batch_size=8
)


def opened(label: str) -> Callable[[Path], object]:
    """What a stage or a command sees of a published artifact."""
    return lambda project: open_artifact(label).manifest


def tensors(load: Callable[[Path], torch.nn.Module], label: str) -> Callable[[Path], object]:
    """What `load_encoder` and the like make of a folder."""

    def read(project: Path) -> object:
        weights = load(ARTIFACTS / label).state_dict()
        return {name: tensor.numpy().tobytes() for name, tensor in weights.items()}

    return read


def frames(project: Path) -> object:
    """Frames read without a manifest."""
    read = read_frames(ARTIFACTS / "frames/breakout")
    return [(f.image.tobytes(), f.action, f.reward, f.terminated, f.step) for f in read]


def maps(project: Path) -> object:
    """Maps read without a manifest."""
    of = read_frames(ARTIFACTS / "frames/breakout")
    indices, read = read_saliency(ARTIFACTS / "saliency/breakout-error", of)
    return indices.tobytes(), read.tobytes()


def clicking(project: Path) -> object:
    """What the page to click on shows, and what a click leaves in the file."""
    images = np.zeros((len(KEYS), 8, 8, 3), np.uint8)
    task = server.Task("breakout", "alice", Path(CLICKS), KEYS, (DIGEST,) * len(KEYS), images)
    origin = "http://127.0.0.1:8080"
    app = server.application(task, origin, "token")

    async def ask() -> object:
        asked = {"before": [], "after": [[1.0, 2.0]]}
        headers = {"Host": origin.removeprefix("http://"), "Origin": origin}
        async with TestClient(TestServer(app)) as client:
            shown = await (await client.get("/token/state", headers=headers)).json()
            saved = await client.put("/token/frames/4", json=asked, headers=headers)
            answer = await saved.json()
        for error in (part["error"] for part in (shown, answer) if "error" in part):
            raise FoveaError(error)  # as the page says it
        return shown, answer, Path(CLICKS).read_bytes()

    return asyncio.run(ask())


def policy(project: Path) -> object:
    """What `load_policy` makes of a folder."""
    weights = load_policy(ARTIFACTS / POLICY).agent.policy.state_dict()
    return {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


def cached(project: Path) -> object:
    """Features by an encoder that reads errors which other processes computed."""
    images = read_frames(ARTIFACTS / FRAMES).images[:8]
    encoder = load_encoder(ARTIFACTS / ENCODER, shared=ARTIFACTS / ".errors")
    features = encoder(torch.from_numpy(images).permute(0, 3, 1, 2))
    return {name: value.numpy().tobytes() for name, value in features.items()}


def runs(project: Path) -> object:
    """The records of runs that go into results."""
    return [run_record(ARTIFACTS, path.stem) for path in sorted(ARTIFACTS.glob(".runs/*.json"))]


def taken(project: Path) -> object:
    """A finished artifact that DVC hasn't recorded and has removed; it is made again if damaged."""
    folder = project / "work/finished" / f"collect-breakout-{0:016x}"
    if not folder.exists():
        folder.mkdir(parents=True)
        finished.keep(folder, ARTIFACTS / FRAMES, FRAMES)
        return None
    out = folder / "out"
    out.mkdir()
    with contextlib.chdir(folder):  # there is no such artifact here
        if finished.take(folder, out, FRAMES) is None:
            shutil.copytree(project / ARTIFACTS / FRAMES, out, dirs_exist_ok=True)
    return digests(out)


def report(project: Path) -> object:
    """The report's page and numbers."""
    tables = {
        table: {name: entry.resolved() for name, entry in entries.items()}
        for table, entries in params.load().tables.items()
    }
    with tempfile.TemporaryDirectory() as out:
        render(tables, ARTIFACTS, Path(out))
        return digests(Path(out))


def resumed(stage: str, label: str, **inputs: str) -> Callable[[Path], object]:
    """What a stage publishes that goes on from the work in `work/`; begun, where there is none."""

    table, name = label.split("/")

    def read(project: Path) -> object:
        module = importlib.import_module(f"pipeline.{stage}")
        entry = params.entry_of(stage, table, name)
        opened = {key: open_artifact(of) for key, of in (inputs or entry.inputs()).items()}
        folder = Path("work") / stage / name
        begun = folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        running = Stage(stage, entry, opened, folder)
        metrics = module.run(running)
        if begun:
            seal(running.out, label, entry={}, inputs={}, metrics=metrics)
        return digests(running.out)

    return read


def pretraining(project: Path) -> object:
    """Training that goes on from its checkpoints."""
    method = mae.Pretraining(TINIEST, (3, 16, 16))
    columns = {"image": torch.arange(12 * 768).reshape(12, 16, 16, 3).to(torch.uint8).numpy()}
    folder = Path("work/fit")
    folder.mkdir(parents=True, exist_ok=True)
    losses = fit(method, columns, batch_size=4, epochs=2, seed=0, folder=folder, checkpoint_every=2)
    return losses.tobytes(), [p.detach().numpy().tobytes() for p in method.parameters()]


def seed(project: Path) -> object:
    """A seed that goes on from its checkpoints, or begins and is stopped after 80 steps of 160."""
    folder = Path("work/seed")
    begun = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    steps = 0

    def count(more: int) -> None:
        nonlocal steps
        steps += more
        if steps == 80 and not begun:
            raise InterruptedError

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(InterruptedError):
        patch.setattr("datasets.envs.make", fakes.make_chain)
        patch.setattr("datasets.envs.single", fakes.single_chain)
        for _ in range(1 + begun):  # once more, as a stage does that finds the seed finished
            off_policy.train(
                fakes.policy(), folder=folder, checkpoint_every=60, resume_every=25, progress=count
            )
    if begun:
        check_sealed(folder)
        drop_digests(folder)
    return digests(folder)


def digests(folder: Path) -> dict[str, str]:
    """Name and SHA-256 of all files below a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


FRAMES, MAPS, ENCODER = "frames/breakout", "saliency/breakout-error", "encoders/breakout-mae"
STUDENT, POLICY = "predictors/breakout-student", "policies/breakout-spirl"
PLAYED, LEARNED = "evaluations/breakout-spirl", "frames/reach"
EXAM = "exams/pacman-error"
FROZEN = "artifacts/{0}/config.json artifacts/{0}/model.safetensors"
# What the project of the tests has built, and milliseconds suffice for: these stay sound.
QUICK = [
    Reader("frames opened", f"artifacts/{FRAMES}/*", opened(FRAMES)),
    Reader("encoder opened", f"artifacts/{ENCODER}/*", opened(ENCODER)),
    Reader("frames without a manifest", f"artifacts/{FRAMES}/*.tar", frames),
    Reader("click file", CLICKS, lambda project: read_clicks(Path(CLICKS))),
    Reader("page to click on", CLICKS, clicking, "clicks"),
    Reader("load_encoder", FROZEN.format(ENCODER), tensors(load_encoder, ENCODER)),
    Reader("records of runs", "artifacts/.runs/*.json", runs),
    Reader("finished work", f"work/finished/*/finished/{FRAMES}/*", taken, "work/finished"),
    Reader("frames in progress", "work/collect/breakout/out/*", resumed("collect", FRAMES),
           "work/collect/breakout"),
    Reader("checkpoints in progress", "work/fit/*", pretraining, "work/fit"),
]  # fmt: skip
# What takes a whole project, or longer.
WHOLE = [
    Reader("maps opened", f"artifacts/{MAPS}/**/*", opened(MAPS)),
    Reader("policy opened", f"artifacts/{POLICY}/**/*", opened(POLICY)),
    Reader("evaluation opened", f"artifacts/{PLAYED}/*", opened(PLAYED)),
    Reader("exam opened", f"artifacts/{EXAM}/*", opened(EXAM)),
    Reader("maps without a manifest", f"artifacts/{MAPS}/*.tar", maps),
    Reader("load_saliency", FROZEN.format(STUDENT), tensors(load_saliency, STUDENT)),
    Reader("load_policy", f"artifacts/{POLICY}/**/*.json artifacts/{POLICY}/**/*.safetensors",
           policy),
    Reader("cached errors", "artifacts/.errors/*/*", cached, "artifacts/.errors"),
    Reader("report", "artifacts/[a-z]*/*/* artifacts/policies/*/seed-*/*", report),
    Reader("learner of a replay", "work/collect/reach/learner/*", resumed("collect", LEARNED),
           "work/collect/reach"),
    Reader("maps in progress", "work/label/*/out/*", resumed("label", MAPS), "work/label"),
    Reader("maps of an exam", "work/exam/*/*.npy", resumed("exam", EXAM), "work/exam"),
    Reader("seed in progress", "work/seed/*.* work/seed/resume/*", seed, "work/seed"),
    Reader("seeds that are done", "work/train/*/seed-0/*", resumed("train", POLICY), "work/train"),
    Reader("episodes", "work/evaluate/*/*", resumed("evaluate", POLICY, policy=POLICY),
           "work/evaluate"),
]  # fmt: skip


def prepare(project: Path, readers: list[Reader]) -> None:
    """Put in place what readers read besides artifacts: a click file, and work in progress."""
    (project / CLICKS).parent.mkdir()
    points = ((7.5, 8.0), (200.1, 399.9), (0.0, 12.3))
    write_clicks(project / CLICKS, {key: FrameClicks(DIGEST, points) for key in KEYS[:-1]})
    with contextlib.chdir(project):
        for reader in readers:
            if reader.writes and reader.writes.startswith("work"):
                reader.read(project)
