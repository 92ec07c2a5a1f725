"""Projects in temporary folders, in which stages run as at the repository's root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from pipeline import params
from pipeline.config import closure
from pipeline.config.tables import COMMITTED, Params
from pipeline.runtime.artifact import ROOT as ARTIFACTS
from pipeline.runtime.artifact import seal
from pipeline.runtime.parallel import Task
from tests.pipeline.results.some_records import small_recipe

CODE = Path(__file__).parent.parent.parent
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
TINY = """
frames:
  breakout: {env: atari/Breakout, source: random, count: 96, streams: 2}
  pacman: {env: atari/MsPacman, source: random, count: 200, streams: 2}
annotations:
  pacman: {frames: pacman, annotator: objects, count: 20}
predictors:
  breakout-motion: {data: frames/breakout, model: motion}
  breakout-student: {data: saliency/breakout-error, model: student, size: 48, batch_size: 16,
                     epochs: 2}
saliency:
  breakout-error: {frames: breakout, by: encoders/breakout-mae}
encoders:
  breakout-mae: {data: frames/breakout, model: mae, patch: 16, epochs: 8, warmup_epochs: 1,
                 batch_size: 16}
exams:
  pacman-error: {truth: annotations/pacman, by: encoders/breakout-mae, keypoints: 7}
policies:
  breakout-spirl: {env: atari/Breakout, encoder: breakout-mae, agent: rainbow, seeds: 1,
                   steps: 160, learn_start: 60, n_step: 3, checkpoint_every: 40, games: 1}
  breakout-der: {env: atari/Breakout, encoder: pixels, agent: rainbow, seeds: 1,
                 steps: 100, learn_start: 60, n_step: 3, checkpoint_every: 50, games: 1}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    names = ("chromium", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.fail("no Chromium to look at our pages with; install Debian's package `chromium`")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        launched.close()


@dataclass(frozen=True)
class Project:
    """A folder with a params.yaml, in which artifacts are built."""

    folder: Path

    def start(self, stage: str, *names: str, **env: str) -> subprocess.Popen[str]:
        """Start a stage like dvc.yaml, without DVC, or a command."""
        return subprocess.Popen(
            [sys.executable, "-m", closure.module_of(stage), *names],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1"} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, stage: str, *names: str, **env: str) -> tuple[int, str]:
        """Exit status and output of a stage run to its end."""
        process = self.start(stage, *names, **env)
        output, _ = process.communicate(timeout=280)
        return process.returncode, output

    def built(self, stage: str, *names: str) -> str:
        """The output of a stage that must succeed."""
        code, output = self.run(stage, *names)
        assert code == 0, output
        return output

    @property
    def artifacts(self) -> Path:
        """The project's artifacts/."""
        return self.folder / ARTIFACTS

    def edit(self, old: str, new: str) -> None:
        """Replace a text of params.yaml, which must occur."""
        path = self.folder / "params.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project with TINY as its params.yaml."""
    (tmp_path / "params.yaml").write_text(TINY)
    return Project(tmp_path)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the frames and the encoders of TINY built; tests must not change it."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "params.yaml").write_text(TINY)
    project = Project(folder)
    for stage, name in (
        ("collect", "breakout"),
        ("pretrain", "breakout-mae"),
    ):
        project.built(stage, name)
    return project


@pytest.fixture
def on_built(built: Project, tmp_path: Path) -> Project:
    """A new project that starts with the artifacts of `built`."""
    shutil.copytree(built.folder, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path)


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A DVC project of the quick recipe whose artifacts count as built.

    The artifacts are placeholders that `dvc commit` accepts: the stages that DVC would run again
    depend on digests, not on the content of files.
    """
    folder = tmp_path_factory.mktemp("committed")
    fresh_clone(folder)
    checked = write_stamps(folder)
    labels = [entry.label for entry in checked] + ["report"]
    labels += [f"evaluations/{name}" for name in checked.tables["policies"]]
    for label in labels:
        place = folder / ARTIFACTS / label
        place.mkdir(parents=True, exist_ok=True)
        (place / "placeholder").write_text(label)
        if label != "report":
            seal(place, label, entry={}, inputs={}, metrics={})
    report = folder / ARTIFACTS / "report"
    (report / "curves").mkdir()
    (report / "scores").mkdir()
    for name, text in (
        ("index.html", "page"),
        ("scores/x.json", "{}"),
        ("curves/x.csv", "step,mean"),
    ):
        (report / name).write_text(text)
    dvc(folder, "commit", "--force")
    return Project(folder)


def fresh_clone(folder: Path) -> None:
    """Copy the files of a clone of the working tree into `folder`, as its own repository."""
    ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
    for name in ("datasets", "pretrain", "rl", "pipeline", "bench/measured", ".dvc"):
        shutil.copytree(CODE / name, folder / name, ignore=ignored)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(CODE / name, folder)
    (folder / ARTIFACTS).mkdir()
    shutil.copy(CODE / ARTIFACTS / ".gitignore", folder / ARTIFACTS)
    for marker in (CODE / ARTIFACTS).glob("*/.keep"):
        (folder / ARTIFACTS / marker.parent.name).mkdir()
        shutil.copy(marker, folder / ARTIFACTS / marker.parent.name)
    for name in COMMITTED:
        label = f"{ARTIFACTS}/encoders/{name}"
        shutil.copytree(CODE / label, folder / label)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


def write_stamps(folder: Path) -> Params:
    """Write the stamps in a clone like the stage `code`, in this process, which has the imports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(closure, "CODE", folder)
        return params.write_stamps()


def run_here(tasks: Sequence[Task], **_: object) -> None:
    """`run_parallel` in this process, in which a test may have replaced something."""
    for task in tasks:
        task(lambda *_: None)


def with_python() -> dict[str, str]:
    """An environment in which `python` is this one, as in an activated .venv."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def dvc(folder: Path, *words: str) -> str:
    """Output of a DVC command that must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=folder,
        env=with_python(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A small recipe, the only one for claims and records."""
    return small_recipe(tmp_path, monkeypatch)
