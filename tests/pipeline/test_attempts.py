"""What is noted of a stage's runs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipeline.runtime import attempts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def test_runs_are_counted_and_added_up(tmp_path: Path, clock: list[float]) -> None:
    for began, ended in ((1000.0, 1030.0), (5000.0, 5012.5)):
        clock[0] = began
        attempts.begin(tmp_path)
        clock[0] = ended
        attempts.end(tmp_path)
    clock[0] = 6000.0
    attempts.begin(tmp_path)
    clock[0] = 6001.0
    seconds, runs = attempts.spent(tmp_path)  # the one at work too
    assert seconds == pytest.approx(43.5) and runs == 3


def test_what_is_done_is_forgotten(tmp_path: Path, clock: list[float]) -> None:
    attempts.begin(tmp_path)
    clock[0] = 4000.0
    attempts.forget(tmp_path)
    attempts.begin(tmp_path)
    assert attempts.spent(tmp_path) == (0.0, 1)


def test_a_killed_run_ended_when_it_last_wrote(tmp_path: Path, clock: list[float]) -> None:
    attempts.begin(tmp_path)
    (tmp_path / "seed-0").mkdir()
    for name, written in (("a", 1020.0), ("seed-0/b", 1070.0), ("seed-0", 1010.0)):
        path = tmp_path / name
        if not path.is_dir():
            path.touch()
        os.utime(path, (written, written))
    os.utime(tmp_path / attempts.NAME, (1000.0, 1000.0))
    clock[0] = 9000.0
    attempts.begin(tmp_path)
    seconds, runs = attempts.spent(tmp_path)
    assert seconds == pytest.approx(70.0) and runs == 2


def test_killed_before_it_wrote_anything(tmp_path: Path, clock: list[float]) -> None:
    attempts.begin(tmp_path)
    os.utime(tmp_path / attempts.NAME, (1000.0, 1000.0))
    clock[0] = 2000.0
    attempts.begin(tmp_path)
    assert attempts.spent(tmp_path) == (0.0, 2)
