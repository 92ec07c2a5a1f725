"""The whole pipeline with real DVC, small: built, reused, swapped back and forth, killed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from datasets.sealed import read_sealed, write_sealed
from pipeline.runtime.record import ATTEMPTS
from pretrain.frozen import load_encoder
from tests.pipeline.conftest import TINY, Project, dvc, fresh_clone, with_python

SECOND = """\
  breakout-all: {env: atari/Breakout, encoder: breakout-mae, agent: rainbow, seeds: 1, steps: 100,
             learn_start: 60, n_step: 3, checkpoint_every: 100, games: 1, features: {select: all}}
"""
# An untrained policy's game may last to the horizon; one of random actions is short.
PLAYABLE = TINY.replace("games: 1}", "games: 1, epsilon: 1.0}")


def ran(output: str) -> set[str]:
    return set(re.findall(r"Running stage '(.+?)'", output))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project built by `dvc repro`."""
    folder = tmp_path_factory.mktemp("whole")
    fresh_clone(folder)
    (folder / "params.yaml").write_text(PLAYABLE)
    assert "report" in ran(dvc(folder, "repro"))
    yield Project(folder)


@pytest.mark.slow
def test_everything_is_built_and_nothing_is_left_to_do(whole: Project) -> None:
    page = (whole.artifacts / "report/index.html").read_text()
    for name in (
        "breakout-spirl",
        "breakout-der",
        "breakout-mae",
        "breakout-error",
        "breakout-motion",
        "pacman-error",
    ):
        assert name in page
    assert "<h2>Exams</h2>" in page and "random cells" in page
    assert "SMOKE" in page.upper()
    scores = dvc(whole.folder, "metrics", "show").splitlines()
    columns = ["Path", "random", "return", "return_high", "return_low", "smoke_test"]
    assert scores[0].split() == columns
    assert len(scores) == 3 and max(map(len, scores)) <= 110
    assert ran(dvc(whole.folder, "repro")) == set()
    status = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=all", "artifacts"],
        cwd=whole.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = {line[3:] for line in status.stdout.splitlines()}
    committed = (".keep", ".gitignore", "encoders/pixels", "encoders/state")
    assert all(any(part in name for part in committed) for name in listed), listed


@pytest.mark.slow
def test_manifests_have_the_lineage(whole: Project) -> None:
    policy = json.loads((whole.artifacts / "policies/breakout-spirl/manifest.json").read_text())
    assert set(policy["inputs"]) == {"encoders/breakout-mae"}
    assert policy["entry"]["gamma"] == 0.99  # left out in params.yaml
    played = json.loads(
        (whole.artifacts / "evaluations/breakout-spirl/evaluation.json").read_text()
    )
    assert [c["step"] for c in played["seeds"][0]["checkpoints"]] == [40, 80, 120, 160]
    assert all(len(c["returns"]) == 1 for c in played["seeds"][0]["checkpoints"])
    assert len(played["random"]["returns"]) == 1


@pytest.mark.slow
def test_exported_and_loaded_encoders_agree(whole: Project) -> None:
    folder = whole.artifacts / "encoders/breakout-mae"
    image = torch.randint(0, 256, (3, 3, 96, 96), dtype=torch.uint8)
    ours = load_encoder(folder)(image)
    theirs = torch.export.load(folder / "encoder.pt2").module()(image)
    assert torch.equal(ours["pos"], theirs["pos"])
    assert (ours["x"] - theirs["x"]).abs().max() <= 1e-5


@pytest.mark.slow
def test_a_second_policy_reuses_the_encoder_and_removing_it_is_free(whole: Project) -> None:
    path = whole.folder / "params.yaml"
    path.write_text(PLAYABLE + SECOND.replace("games: 1,", "games: 1, epsilon: 1.0,"))
    assert ran(dvc(whole.folder, "repro")) == {
        "code",
        "train@breakout-all",
        "evaluate@breakout-all",
        "report",
    }
    assert "breakout-all" in (whole.artifacts / "report/index.html").read_text()
    path.write_text(PLAYABLE)
    output = dvc(whole.folder, "repro")
    # Nothing is built again. The page is written again: the other policy's folder still exists.
    assert ran(output) <= {"code", "report"}, output
    assert "breakout-all" not in (whole.artifacts / "report/index.html").read_text()


@pytest.mark.slow
def test_a_killed_repro_leaves_nothing_running_and_resumes(tmp_path: Path) -> None:
    """`kill -9` of DVC alone ends its stage too; the next repro resumes the work."""
    fresh_clone(tmp_path)
    (tmp_path / "params.yaml").write_text(PLAYABLE.replace("count: 96", "count: 36864"))
    words = [sys.executable, "-m", "dvc", "repro", "collect@breakout"]
    # DVC then takes /bin/sh; Debian's stays between DVC and a stage that it is not told to `exec`.
    plain = {name: value for name, value in with_python().items() if name != "SHELL"}
    process = subprocess.Popen(words, cwd=tmp_path, env=plain)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("artifacts/.work/collect-breakout-*/out/*.tar")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    while (left := _running_in(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
    sealed = {p.name: p.read_bytes() for p in tmp_path.glob("artifacts/.work/collect*/out/*.tar")}
    (attempts,) = tmp_path.glob(f"artifacts/.work/collect-breakout-*/{ATTEMPTS}")
    runs = json.loads(read_sealed(attempts))
    runs["began"] -= 1000  # as if it had begun long before
    write_sealed(attempts, json.dumps(runs).encode())
    dvc(tmp_path, "repro", "collect@breakout")
    built = {p.name: p.read_bytes() for p in (tmp_path / "artifacts/frames/breakout").glob("*.tar")}
    assert len(built) == 36
    assert 0 < len(sealed) < len(built)  # or the kill came too late to show anything
    assert {name: built[name] for name in sealed} == sealed
    run = json.loads((tmp_path / "artifacts/.runs/collect-breakout.json").read_text())
    assert run["resumed"] == 1
    assert run["wall_seconds"] > 1000  # the killed run's too


def _running_in(folder: Path) -> list[int]:
    """Processes that run in a folder, without zombies."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            zombie = process.joinpath("stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            if Path(os.readlink(process / "cwd")) == folder and not zombie:
                pids.append(int(process.name))
        except OSError:  # it ended while we looked
            continue
    return pids
