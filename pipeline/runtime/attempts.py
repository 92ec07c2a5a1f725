"""How often and how long a stage worked at one artifact: killed runs count too."""

from __future__ import annotations

import time
from pathlib import Path

from datasets.files import write_atomic

NAME = "runs"  # a line a run: when it began and ended, in seconds since 1970


def begin(folder: Path) -> None:
    """Note that a run begins in `folder`; one that was killed ended when it last wrote there."""
    runs = _read(folder)
    if runs and len(runs[-1]) == 1:
        runs[-1].append(max(path.stat().st_mtime for path in folder.rglob("*")))
    _write(folder, [*runs, [time.time()]])


def end(folder: Path) -> None:
    """Note that the run ends without being done."""
    if runs := _read(folder):  # or it is done, and was interrupted while that was tidied up
        _write(folder, [*runs[:-1], [runs[-1][0], time.time()]])


def forget(folder: Path) -> None:
    """Begin to count anew: what was worked at is done."""
    (folder / NAME).unlink()


def spent(folder: Path) -> tuple[float, int]:
    """Seconds of all runs so far, the one at work included, and how many there were."""
    runs = _read(folder)
    seconds = sum((times[1:] or [time.time()])[0] - times[0] for times in runs)
    return seconds, len(runs)


def _read(folder: Path) -> list[list[float]]:
    path = folder / NAME
    lines = path.read_text().splitlines() if path.exists() else []
    return [[float(number) for number in line.split()] for line in lines]


def _write(folder: Path, runs: list[list[float]]) -> None:
    lines = (" ".join(f"{number:.3f}" for number in times) for times in runs)
    write_atomic(folder / NAME, "".join(f"{line}\n" for line in lines).encode())
