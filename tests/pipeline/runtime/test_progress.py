"""Progress of long work: done, rate and time left."""

from __future__ import annotations

import pytest

from pipeline.runtime import progress


class Clock:
    """A replacement for the module `time`."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def run(bar: progress.Progress, clock: Clock, seconds: int, a_second: int) -> None:
    for _ in range(seconds):
        clock.now += 1
        bar(a_second)


def test_rate_and_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = progress.Progress("train", 3_000, "steps")
    assert last_line(capsys) == "train: 0/3,000 steps"
    run(bar, clock, 10, 20)
    assert last_line(capsys) == "train: 200/3,000 steps, 20.0/s, 2:20 left"
    run(bar, clock, 140, 20)
    bar.finish()
    assert last_line(capsys) == "train: 3,000/3,000 steps, 20.0/s, in 2:30"


def test_work_of_earlier_runs_does_not_count_as_speed(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = progress.Progress("train", 100_000, "steps")
    clock.now += 3  # reading the checkpoint
    bar(62_000)
    run(bar, clock, 10, 5)
    assert last_line(capsys).endswith(", 5.0/s, 2:06:33 left")


def test_the_rate_is_that_of_the_last_minute(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = progress.Progress("train", 100_000, "steps")
    run(bar, clock, 100, 400)  # random steps: nothing learned yet
    run(bar, clock, 80, 10)
    assert ", 10.0/s, " in last_line(capsys)


def test_work_that_is_already_done_is_reported_at_once(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = progress.Progress("train", 500, "steps")
    bar(500)
    bar.finish()
    assert last_line(capsys) == "train: 500/500 steps, in 0:00"
