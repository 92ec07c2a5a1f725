"""Several Ray nodes on one machine give the bytes of processes, even if one of them is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from ray import cloudpickle

from datasets.errors import FoveaError
from pipeline.runtime import artifact
from pipeline.runtime.parallel import CLUSTER, run_parallel
from tests.pipeline.conftest import CODE, Project
from tests.pipeline.test_resume import content

pytestmark = pytest.mark.cluster

WORK = """
frames:
  breakout: {env: atari/Breakout, source: random, count: 8000, streams: 4}
annotations: {}
predictors:
  motion: {data: frames/breakout, model: motion}
saliency:
  motion: {frames: breakout, by: predictors/motion}
encoders: {}
policies:
  der: {env: atari/Breakout, encoder: pixels, agent: rainbow, seeds: 2, steps: 2500,
        learn_start: 100, n_step: 3, update_every: 50, checkpoint_every: 1000, games: 1}
exams: {}
"""
STAGES = [  # stage, entry, folder it publishes, and what it has on the head after some work
    ("collect", "breakout", "frames/breakout", ".work/collect-*/out/*.tar"),
    ("train", "der", "policies/der", ".work/train-*/seed-*/resume/state-*.pt"),
]


@dataclass(frozen=True)
class Raylets:
    """A cluster, whose first node is the head."""

    process: subprocess.Popen[str]
    address: str

    def kill_one(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "killed\n"


@pytest.fixture(scope="module")
def raylets() -> Iterator[Raylets]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.pipeline.runtime.raylets"],
        cwd=CODE,
        env={k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin and process.stdout
    yield Raylets(process, process.stdout.readline().strip())
    process.stdin.close()
    process.wait(60)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "name", "folder", "progress"), STAGES, ids=["shards", "seeds"])
def test_same_bytes_on_processes_on_nodes_and_with_one_killed(
    tmp_path: Path, raylets: Raylets, stage: str, name: str, folder: str, progress: str
) -> None:
    built = []
    for how in ("processes", "nodes", "killed"):
        project = Project(tmp_path / how)
        project.folder.mkdir()
        (project.folder / "params.yaml").write_text(WORK)
        env = {} if how == "processes" else {CLUSTER: raylets.address}
        process = project.start(stage, name, **env)
        if how == "killed":
            deadline = time.monotonic() + 60
            while not list(project.artifacts.glob(progress)):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.01)
            raylets.kill_one()
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
        assert ("was lost" in output) == (how == "killed"), output
        built.append(content(project.artifacts / folder))
    expected, *others = built
    assert len(expected) > 8
    for files in others:
        assert files.keys() == expected.keys()
        assert [file for file in expected if files[file] != expected[file]] == []


@pytest.mark.slow
def test_same_maps_and_scores_on_processes_and_on_nodes(tmp_path: Path, raylets: Raylets) -> None:
    recipe = WORK.replace("8000", "600").replace("2500", "150").replace("seeds: 2", "seeds: 1")
    (tmp_path / "params.yaml").write_text(recipe)
    project = Project(tmp_path)
    for stage, name in (("collect", "breakout"), ("fit", "motion"), ("train", "der")):
        project.built(stage, name)
    both = []
    for env in ({}, {CLUSTER: raylets.address}):
        for stage, name in (("label", "motion"), ("evaluate", "der")):
            code, output = project.run(stage, name, **env)
            assert code == 0, output
        both.append([content(project.artifacts / name) for name in ("saliency", "evaluations")])
        for folder in ("saliency", "evaluations", ".work"):
            shutil.rmtree(project.artifacts / folder)
    assert both[0] == both[1] and all(map(len, both[0]))


@dataclass(frozen=True)
class Write:
    """Writes a file that says which process it was, after what it does badly."""

    path: Path
    does: str = ""
    gpu: ClassVar = False
    reads: ClassVar[tuple[Path, ...]] = ()

    @property
    def writes(self) -> tuple[Path, ...]:
        return (self.path,)

    def __call__(self, progress: Callable[[int], None]) -> None:
        if self.does == "refuse":
            raise FoveaError("count: too small")
        if self.does == "crash":
            raise RuntimeError("a bug")
        if self.does == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.does == "wander":
            Path("elsewhere").write_text("not mine")
        self.path.write_text(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}")
        progress(1)


def run(*tasks: Write) -> None:
    run_parallel(tasks, label="write", total=len(tasks), unit="files")


@pytest.fixture
def here(raylets: Raylets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder whose tasks run on the cluster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CLUSTER, raylets.address)
    this = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(this)  # no node can import it
    yield tmp_path
    cloudpickle.unregister_pickle_by_value(this)


def test_files_come_back_but_only_those_of_the_task(here: Path) -> None:
    run(Write(Path("a/one")), Write(Path("b"), "wander"))
    assert sorted(path.name for path in here.rglob("*") if path.is_file()) == ["b", "one"]
    process, threads = (here / "a/one").read_text().split()
    assert int(process) != os.getpid() and threads == "1"


@pytest.mark.parametrize(
    ("does", "message"),
    [("refuse", "node .*: count: too small"), ("crash", "traceback"), ("die", "lost.* 5 times")],
)
def test_a_job_that_fails_is_explained(
    here: Path, capfd: pytest.CaptureFixture[str], does: str, message: str
) -> None:
    with pytest.raises(FoveaError, match=message):
        run(Write(Path("a"), does))
    assert ("RuntimeError: a bug" in capfd.readouterr().err) == (does == "crash")


@pytest.mark.parametrize(
    ("number", "wrong"), [("1", True), ("x", True), ("-1", True), ("0", False)]
)
def test_gpus_that_no_node_has_are_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, number: str, wrong: bool
) -> None:
    monkeypatch.setenv("FOVEA_CLUSTER_GPUS", number)
    if wrong:
        with pytest.raises(FoveaError, match=f"FOVEA_CLUSTER_GPUS: {number}, must be"):
            run(Write(Path("a")))
    else:
        run(Write(Path("a")))


@pytest.mark.parametrize(
    ("package", "version", "message"),
    [
        ("torch", "9.9", r"node .* has torch \d.*, here 9.9"),
        ("timm", None, r"node .* has timm \d.*, here absent"),
    ],
)
def test_nodes_with_other_versions_are_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, package: str, version: str | None, message: str
) -> None:
    head = artifact.versions() | {package: version or "absent"}
    monkeypatch.setattr("pipeline.runtime.cluster.here", lambda: head)
    with pytest.raises(FoveaError, match=message):
        run(Write(Path("a")))
    assert not (here / "a").exists()
