"""What becomes of a flipped bit: one reader, one file, one bit at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.errors import FoveaError

# Refused with the file's name; healed, as a note says, with the same result; without any effect on
# the result; refused without the name; used, so that the result is another; any other exception.
OUTCOMES = ("refused", "healed", "harmless", "unnamed", "silent", "traceback")
BAD = OUTCOMES[3:]


@dataclass(frozen=True)
class Reader:
    """Something that reads files of a project."""

    name: str
    files: str  # globs below the project's folder, with spaces between them
    read: Callable[[Path], object]  # project's folder -> what is compared
    writes: str | None = None  # the folder of the project that reading changes, put back each time

    def paths(self, project: Path) -> list[Path]:
        """All files with any bits. Raises FileNotFoundError where a glob has none."""
        paths: list[Path] = []
        for pattern in self.files.split():
            some = [path for path in sorted(project.glob(pattern)) if path.is_file()]
            if not some:
                raise FileNotFoundError(f"{self.name}: no file is {pattern}")
            paths += [path for path in some if path.stat().st_size]
        return paths


@dataclass
class Marks:
    """What became of one reader's flips."""

    reader: Reader
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    cases: list[str] = field(default_factory=list)  # the first bad ones

    def note(self, outcome: str, case: str) -> None:
        """Count a flip."""
        self.counts[outcome] += 1
        if outcome in BAD and len(self.cases) < 3:
            self.cases.append(f"{outcome}: {case}")


def examine(
    reader: Reader, project: Path, seed: int, *, flips: int, seconds: float = float("inf")
) -> Marks:
    """Flip bits for a reader: the file is drawn evenly, then the bit in it.

    Stops after `flips`, or after the flip in which `seconds` have passed. Raises FileNotFoundError
    where the project has no such file.
    """
    paths = reader.paths(project)
    with _put_back(reader, project):
        expected, _ = _quietly(reader, project)
    random, marks, began = (
        np.random.default_rng([seed, *reader.name.encode()]),
        Marks(reader),
        time.monotonic(),
    )
    while marks.counts.total() < flips and time.monotonic() - began < seconds:
        path = paths[random.integers(len(paths))]
        bit = int(random.integers(8 * path.stat().st_size))
        with _put_back(reader, project), _flipped(path, bit):
            outcome, detail = _outcome(reader, project, path, expected)
        marks.note(outcome, f"{path.relative_to(project)} bit {bit}{detail}")
    marks.seconds = time.monotonic() - began
    return marks


def table(all_marks: list[Marks]) -> str:
    """The outcomes of all readers, and below it the first bad cases of each."""
    width = max(len(marks.reader.name) for marks in all_marks)
    lines = [f"{'reader':{width}}" + "".join(f"{name:>10}" for name in ("flips", *OUTCOMES))]
    total: Counter[str] = Counter()
    for marks in all_marks:
        total += marks.counts
        lines.append(_row(f"{marks.reader.name:{width}}", marks.counts))
    lines.append(_row(f"{'all':{width}}", total))
    cases = [f"  {marks.reader.name}: {case}" for marks in all_marks for case in marks.cases]
    return "\n".join(lines + cases)


def _row(name: str, counts: Counter[str]) -> str:
    numbers = (counts.total(), *(counts[outcome] for outcome in OUTCOMES))
    return name + "".join(f"{number:>10}" for number in numbers)


def _outcome(reader: Reader, project: Path, path: Path, expected: object) -> tuple[str, str]:
    try:
        value, said = _quietly(reader, project)
    except FoveaError as error:
        names = path.name, path.name.removeprefix(".").removesuffix(".sha256")
        if any(name in str(error) for name in names):
            return "refused", ""
        return "unnamed", f": {error}"
    except Exception as error:
        return "traceback", f": {type(error).__name__}: {str(error)[:200]}"
    if value != expected:
        return "silent", ""
    return ("healed" if "note: " in said else "harmless"), ""


def _quietly(reader: Reader, project: Path) -> tuple[object, str]:
    """The reader's value, and what it printed."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as printed, contextlib.chdir(project):
        os.dup2(printed.fileno(), 2)  # that of processes it starts too
        try:
            value = reader.read(project)
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
        printed.seek(0)
        return value, printed.read().decode(errors="replace")


@contextlib.contextmanager
def _flipped(path: Path, bit: int) -> Iterator[None]:
    good = path.read_bytes()
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bad)
    try:
        yield
    finally:
        if path.parent.is_dir():  # a folder that is put back as a whole may be gone
            path.write_bytes(good)


@contextlib.contextmanager
def _put_back(reader: Reader, project: Path) -> Iterator[None]:
    """What the reader changes is as it was afterwards."""
    if reader.writes is None:
        yield
        return
    folder, aside = project / reader.writes, project / f"{reader.writes}.aside"
    shutil.copytree(folder, aside)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
