"""A small sample of the exam, and the exam's own verdicts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.errors import FoveaError
from tests.exam.examine import BAD, Reader, examine, table
from tests.exam.readers import QUICK, prepare
from tests.pipeline.conftest import Project


@pytest.fixture(scope="module")
def project(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exam").resolve() / "project"
    shutil.copytree(built.folder, folder)
    prepare(folder, QUICK)
    return folder


@pytest.mark.parametrize("reader", QUICK, ids=lambda reader: reader.name)
def test_no_flipped_bit_is_used(project: Path, reader: Reader) -> None:
    marks = examine(reader, project, seed=1, flips=40, seconds=3)
    assert marks.counts.total() > 0 and not any(marks.counts[bad] for bad in BAD), table([marks])


def names(project: Path) -> object:
    if (project / "file").read_bytes() != b"a":
        raise FoveaError("file: damaged")
    return 0


def names_nothing(project: Path) -> object:
    if (project / "file").read_bytes() != b"a":
        raise FoveaError("something is damaged")
    return 0


def breaks(project: Path) -> object:
    return {b"a": 0}[(project / "file").read_bytes()]


def heals(project: Path) -> object:
    if (project / "file").read_bytes() != b"a":
        os.write(2, b"note: a: made again\n")
    return 0


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (names, "refused"),
        (names_nothing, "unnamed"),
        (breaks, "traceback"),
        (heals, "healed"),
        (lambda project: (project / "file").read_bytes(), "silent"),
        (lambda project: 0, "harmless"),
    ],
)
def test_the_verdicts_of_the_exam(
    tmp_path: Path, read: Callable[[Path], object], outcome: str
) -> None:
    (tmp_path / "file").write_bytes(b"a")
    marks = examine(Reader("one", "file", read), tmp_path, seed=0, flips=8)
    assert marks.counts == {outcome: 8} and (tmp_path / "file").read_bytes() == b"a"
    assert f"{outcome}: file bit" in table([marks]) or outcome not in BAD


def test_changes_by_a_reader_are_undone(tmp_path: Path) -> None:
    def read(project: Path) -> object:
        (project / "work/b").write_bytes(b"b")
        (project / "work/a").unlink()
        return 0

    (tmp_path / "work").mkdir()
    (tmp_path / "work/a").write_bytes(b"a")
    marks = examine(Reader("one", "work/a", read, "work"), tmp_path, seed=0, flips=3)
    assert marks.counts == {"harmless": 3}
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["a"]
    assert (tmp_path / "work/a").read_bytes() == b"a"
