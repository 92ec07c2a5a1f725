"""Every stage, killed at random points and run again, ends in the bytes of an uninterrupted run."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.runtime import stage
from tests.pipeline.conftest import Project

# Stage, entry, folder it publishes, and what its tables need to have the stage last a while.
STAGES = [
    (
        "collect",
        "breakout",
        "frames/breakout",
        ("count: 96, streams: 2", "count: 6000, streams: 2"),
    ),
    (  # which learns before it renders
        "collect",
        "reach",
        "frames/reach",
        (
            "frames:\n",
            "frames:\n  reach: {env: metaworld/reach, source: replay, count: 400, streams: 2, "
            "steps: 1300, learn_start: 510, hidden: 16}\n",
        ),
    ),
    ("label", "breakout-error", "saliency/breakout-error", ("count: 96", "count: 96")),
    ("fit", "breakout-student", "predictors/breakout-student", ("epochs: 2}", "epochs: 60}")),
    ("pretrain", "breakout-mae", "encoders/breakout-mae", ("epochs: 8", "epochs: 24")),
    ("train", "breakout-spirl", "policies/breakout-spirl", ("steps: 160", "steps: 400")),
    ("evaluate", "breakout-spirl", "evaluations/breakout-spirl", ("games: 1", "games: 2")),
    ("exam", "pacman-error", "exams/pacman-error", ("objects, count: 20", "objects, count: 180")),
]


def content(folder: Path) -> dict[str, bytes]:
    """Every file of an artifact."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kill_at(project: Project, stage: str, name: str, how: signal.Signals, moment: float) -> int:
    """Start a stage, and kill or interrupt it after `moment` seconds."""
    process = project.start(stage, name)
    deadline = time.monotonic() + 60
    while not list(project.artifacts.glob(f".work/{stage}-{name}-*")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        return process.wait(moment)
    except subprocess.TimeoutExpired:
        process.send_signal(how)
        return process.wait(30)
    finally:
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "name", "folder", "longer"), STAGES, ids=lambda v: str(v)[:20])
def test_killed_and_resumed(
    on_built: Project, tmp_path: Path, stage: str, name: str, folder: str, longer: tuple[str, str]
) -> None:
    project = on_built
    project.edit(*longer)
    if stage == "evaluate":
        project.built("train", name)
    if stage == "fit":
        project.built("label", "breakout-error")
    if stage == "exam":
        project.built("collect", "pacman")
        project.built("annotate", "pacman")
    project.built(stage, name)
    work = json.loads((project.artifacts / f".runs/{stage}-{name}.json").read_text())
    expected = content(project.artifacts / folder)
    shutil.rmtree(project.artifacts / ".work")
    shutil.rmtree(project.artifacts / folder)
    stopped = 0
    chance = random.Random(stage)
    for how in (signal.SIGKILL, signal.SIGTERM):
        kill_at(project, stage, name, how, work["wall_seconds"] * chance.uniform(0.05, 0.5))
        if (project.artifacts / folder).exists():  # the kill came late: it must be whole
            assert content(project.artifacts / folder) == expected
            shutil.rmtree(project.artifacts / folder)
        else:
            stopped += 1
    assert stopped, "it was always faster than the kill: nothing was shown"
    project.built(stage, name)
    files = content(project.artifacts / folder)
    assert files.keys() == expected.keys()
    assert [key for key in expected if files[key] != expected[key]] == []


@pytest.mark.slow
def test_work_that_cannot_be_resumed_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once, with the folder, and never for another entry whose name begins alike."""
    monkeypatch.setattr(stage, "WORK", tmp_path)
    for label, print_, warns in (
        ("train-x", "0" * 16, False),
        ("train-x-long", "1" * 16, False),
        ("train-x", "0" * 16, False),
        ("train-x", "2" * 16, True),
        ("train-x", "2" * 16, False),
    ):
        with stage.workspace(label, print_):
            pass
        messages = capsys.readouterr().err
        assert (f"earlier progress stays in {tmp_path}/train-x-*" in messages) == warns, (
            label,
            messages,
        )


def test_files_that_dvc_made_read_only_can_be_copied_twice(on_built: Project) -> None:
    """DVC links its cache's files into the workspace, and none of them may be written to."""
    for path in (on_built.artifacts / "encoders/breakout-mae").iterdir():
        path.chmod(0o444)
    code, output = on_built.run("label", "breakout-error")
    assert code == 0, output
    copies = list((on_built.artifacts / "saliency/breakout-error/source").iterdir())
    assert copies and all(path.stat().st_mode & 0o200 for path in copies)


def test_more_seeds_train_only_the_new_ones(on_built: Project) -> None:
    project = on_built
    project.edit("steps: 160", "steps: 70")
    project.built("train", "breakout-spirl")
    first = content(project.artifacts / "policies/breakout-spirl/seed-0")
    record = project.artifacts / ".runs/train-breakout-spirl.json"
    record_bytes = record.read_bytes()
    played = project.built("evaluate", "breakout-spirl")
    one, two = (f"seeds: {n},\n                   steps: 70" for n in (1, 2))
    project.edit(one, two)
    shutil.rmtree(project.artifacts / "policies")  # as DVC does before a run
    output = project.built("train", "breakout-spirl")
    assert "1 of 2 seeds" in output
    assert content(project.artifacts / "policies/breakout-spirl/seed-0") == first
    assert (project.artifacts / "policies/breakout-spirl/seed-1/metrics.json").exists()
    assert record.read_bytes() != record_bytes
    again = project.built("evaluate", "breakout-spirl")
    whole, rest = (re.search(r" 0/(\d+) episodes", output) for output in (played, again))
    assert whole and rest and int(rest[1]) < int(whole[1])  # seed 0 and random play are kept
    project.edit(two, one)
    shutil.rmtree(project.artifacts / "policies")
    project.built("train", "breakout-spirl")
    assert record.read_bytes() == record_bytes  # nothing was trained: it is of the run that did
