"""Parallel tasks: a failure stops all; no process outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from datasets.errors import FoveaError
from pipeline.runtime.parallel import run_parallel


@dataclass(frozen=True)
class Touch:
    """Writes a file, or fails in a given way."""

    path: Path
    fails: str = ""
    gpu: ClassVar = False
    reads: ClassVar[tuple[Path, ...]] = ()

    @property
    def writes(self) -> tuple[Path, ...]:
        return (self.path,)

    def __call__(self, progress: Callable[[int], None]) -> None:
        if self.fails == "user":
            raise FoveaError("count: too small")
        if self.fails == "crash":
            raise RuntimeError("a bug")
        if self.fails == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fails == "sleep":
            self.path.write_text(str(os.getpid()))
            time.sleep(60)
        self.path.write_text(os.environ["OMP_NUM_THREADS"])
        progress(1)


def test_all_tasks_run_with_one_thread_each(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(3)]
    run_parallel([Touch(path) for path in paths], label="touch", total=3, unit="files", workers=2)
    assert [path.read_text() for path in paths] == ["1", "1", "1"]


@pytest.mark.parametrize("first", ["import torch; one_thread()", "one_thread(); import torch"])
def test_torch_has_one_thread_whenever_it_is_imported(first: str) -> None:
    code = (
        f"from pipeline.runtime.parallel import one_thread; {first}; print(torch.get_num_threads())"
    )
    environment = {key: value for key, value in os.environ.items() if "THREADS" not in key}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize(
    ("fails", "says"), [("user", "count: too small"), ("crash", "traceback"), ("kill", "SIGKILL")]
)
def test_a_failure_stops_the_others(tmp_path: Path, fails: str, says: str) -> None:
    slow, began = Touch(tmp_path / "slow", "sleep"), time.monotonic()
    with pytest.raises(FoveaError, match=says):
        run_parallel(
            [slow, Touch(tmp_path / "bad", fails)], label="touch", total=2, unit="files", workers=2
        )
    assert time.monotonic() - began < 30


PARENT = """
from pathlib import Path
from pipeline.runtime.parallel import run_parallel
from tests.pipeline.runtime.test_parallel import Touch
if __name__ == "__main__":
    run_parallel([Touch(Path({path!r}), "sleep")], label="x", total=1, unit="files")
"""


def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    path, script = tmp_path / "pid", tmp_path / "parent.py"
    script.write_text(PARENT.format(path=str(path)))
    parent = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": "."})
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    worker = int(path.read_text())
    parent.kill()
    parent.wait()
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        if "Z" in Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0]:
            return  # dead, waiting to be reaped by init
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()
