"""The record of a stage's runs: their number, and their total time."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from pipeline.runtime import record


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The current time, which the test sets."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def touch(path: Path, moment: float) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.utime(path, (moment, moment))


def begin(folder: Path, clock: list[float], moment: float) -> tuple[float, int]:
    """Begin a run at a moment, with files of that moment."""
    clock[0] = moment
    earlier = record.attempt(folder)
    for path in folder.rglob(f"*{record.ATTEMPTS}*"):
        os.utime(path, (moment, moment))
    return earlier


def test_a_run_that_did_not_publish_ended_at_its_last_write(
    tmp_path: Path, clock: list[float]
) -> None:
    assert begin(tmp_path, clock, 1000.0) == (0.0, 0)
    touch(tmp_path / "a", 1020.0)
    touch(tmp_path / "seed-0/b", 1070.0)
    os.utime(tmp_path / "seed-0", (1010.0, 1010.0))
    assert begin(tmp_path, clock, 9000.0) == (70.0, 1)
    touch(tmp_path / "a", 9005.0)
    assert begin(tmp_path, clock, 20_000.0) == (75.0, 2)


def test_killed_before_it_wrote_anything(tmp_path: Path, clock: list[float]) -> None:
    begin(tmp_path, clock, 1000.0)
    assert begin(tmp_path, clock, 2000.0) == (0.0, 1)


def test_a_record_adds_up_the_runs(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RUNS", tmp_path)
    clock[0] = 5010.5
    written = json.loads(record.record("train", "x", 5000.0, (70.0, 2), "d" * 64))
    assert written == json.loads((tmp_path / "train-x.json").read_text())
    assert (written["wall_seconds"], written["resumed"]) == (80.5, 2)
    assert written["started"] == "1970-01-01T01:23:20+00:00"


def test_the_record_of_earlier_runs_may_be_damaged(tmp_path: Path, clock: list[float]) -> None:
    begin(tmp_path, clock, 1000.0)
    (tmp_path / record.ATTEMPTS).write_text("{")
    assert begin(tmp_path, clock, 2000.0) == (0.0, 0)
