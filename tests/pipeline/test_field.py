"""Stages under real conditions: unusual machines, and changes by people while a stage works. A
stage refuses by name, or continues.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.errors import FoveaError
from pipeline import params
from pipeline.commands import repro
from pipeline.config import closure
from pipeline.runtime import artifact, finished, record, stage
from pipeline.runtime.parallel import explain
from pipeline.runtime.stage import Stage
from pretrain.encoders import mae
from pretrain.frozen import load_encoder, save_encoder
from tests.pipeline.conftest import CODE, Project, fresh_clone

Edit = Callable[[], object]


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project as the current folder; changes of this process are undone afterwards."""
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(sys, "argv", ["collect", "breakout"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return project


def collect(meanwhile: Edit = lambda: None) -> list[str]:
    """Run the stage `collect`, whose work is one file; returns the work that this run did."""
    done: list[str] = []

    def work(running: Stage) -> Mapping[str, Any]:
        if not (running.out / "data.bin").exists():
            (running.out / "data.bin").write_bytes(b"frames")
            done.append("frames")
        meanwhile()
        return {"frames": 96}

    stage.main("collect", "frames", work)
    return done


LABEL, OUT = "frames/breakout", Path("artifacts/frames/breakout")


def test_a_change_while_a_stage_works_is_not_published(
    here: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of params.yaml or of a source file; a change of another entry, or one that is undone, is
    ignored.
    """
    here.edit("epochs: 8", "epochs: 9")
    says = r"params\.yaml \(frames\.breakout\): changed while the stage worked.*run the stage again"
    with pytest.raises(SystemExit, match=says):
        collect(lambda: here.edit("count: 96", "count: 97"))
    assert not OUT.exists()
    here.edit("count: 97", "count: 96")
    source, digests = "datasets/sources/random.py", closure.changed_files
    monkeypatch.setattr(closure, "changed_files", lambda code: [source])
    with pytest.raises(SystemExit, match=f"{source}: changed while the stage worked"):
        collect()
    assert not OUT.exists()
    monkeypatch.setattr(closure, "changed_files", digests)
    assert collect(lambda: here.edit("epochs: 9", "epochs: 10")) == []  # the work was kept
    assert artifact.open_artifact(LABEL).manifest["metrics"] == {"frames": 96}


def test_the_files_of_a_stamp_that_changed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh_clone(tmp_path)
    monkeypatch.setattr(closure, "CODE", tmp_path)
    code = closure.stamp("collect")
    assert closure.changed_files(code) == []
    (tmp_path / "pipeline/collect.py").write_text("half an ed(")
    (tmp_path / "datasets/shards.py").unlink()
    assert closure.changed_files(code) == ["datasets/shards.py", "pipeline/collect.py"]


def test_finished_work_is_kept_until_dvc_has_recorded_it(
    here: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect() == ["frames"]
    first = artifact.open_artifact(LABEL).digest
    shutil.rmtree(OUT)  # as DVC does before a run
    assert collect() == []
    assert artifact.open_artifact(LABEL).digest == first
    assert collect() == ["frames"], "by hand, over what is there, it runs"
    shutil.rmtree(OUT)
    [copy] = Path("artifacts/.work").glob(f"*/{finished.FINISHED}/{LABEL}/data.bin")
    copy.write_bytes(b"fraMes")
    assert collect() == ["frames"]
    assert "data.bin: not the bytes that the manifest lists (damaged), so it is made again" in (
        capsys.readouterr().err
    )
    shutil.rmtree(OUT)
    Path("dvc.lock").touch()
    assert collect() == ["frames"], "DVC had recorded it, and runs it again: `dvc repro -f`"


@pytest.mark.parametrize("place", ["frames", ".work"])
def test_a_folder_on_another_file_system(
    here: Project, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """No rename leads from artifacts/.work to the table's folder."""
    here.artifacts.mkdir()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        assert os.stat(other).st_dev != here.folder.stat().st_dev
        (here.artifacts / place).symlink_to(other)
        for _ in range(2):  # the second time there is one to replace
            assert collect() == ["frames"]
            assert [path.name for path in OUT.parent.iterdir()] == ["breakout"]
            assert artifact.open_artifact(LABEL).files.keys() == {"README.md", "data.bin"}
        assert not list(Path("artifacts/.work").glob("*/out*"))
        monkeypatch.setattr(artifact, "sync_tree", full)
        with pytest.raises(SystemExit, match=r"No space left on device.*free some space"):
            collect()
        assert [path.name for path in OUT.parent.iterdir()] == ["breakout"]


def full(folder: Path) -> None:
    """No more room for the copy beside the artifact."""
    if folder.parent == OUT.parent:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def test_what_dvc_cannot_record_is_refused_before_any_work(here: Project) -> None:
    params.check_folders()
    here.artifacts.mkdir()
    (here.artifacts / "frames").symlink_to("/dev/shm")
    with pytest.raises(FoveaError, match=r"artifacts/frames: a symbolic link.*mount --bind"):
        params.check_folders()


def test_without_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert record.commit() == "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record.commit() == "unknown"


def test_a_group_of_processes_is_refused_but_not_its_left_over_variables(
    here: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(SystemExit, match="TORCHELASTIC_RUN_ID: set, but a stage is one process"):
        collect()


SURROUNDINGS = """
import getpass, os, signal, sys
os.getuid = lambda: 4_000_000
sys.argv[0] = "-m"
import pipeline
assert "torch" not in sys.modules and "numpy" not in sys.modules
assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
assert os.fstat(2) and open("file", "w").fileno() > 2
print("\\u2026", file=sys.stderr)
print("\\u2026", "WORLD_SIZE" in os.environ, getpass.getuser())
"""


@pytest.mark.parametrize("closed", ["", "2>&-", "2>/dev/full"])
def test_unusual_environments_of_a_process(tmp_path: Path, closed: str) -> None:
    """A C locale, no name for the user, a left-over WORLD_SIZE, and a bad standard error."""
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, SURROUNDINGS],
        env={
            "PYTHONPATH": str(CODE), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
            "WORLD_SIZE": "2",
        },
        cwd=tmp_path, capture_output=True, text=True, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored under nohup
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "\\u2026 False uid-4000000\n"), done.stderr


PARENT = """
import os, subprocess, sys, time
code = 'import sys, time; sys.argv[0] = "-m"; import pipeline; print(1, flush=True); time.sleep(60)'
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
"""


@pytest.mark.parametrize("dvc", [True, False])
def test_a_stage_dies_with_dvc_and_with_no_other_parent(dvc: bool) -> None:
    """From before its imports on; a shell as its parent may end."""
    environment = os.environ | {"PYTHONPATH": str(CODE)} | ({"DVC_STAGE": "x"} if dvc else {})
    done = subprocess.run(
        [sys.executable, "-c", PARENT], env=environment, stdout=subprocess.PIPE, check=True
    )
    child, deadline = int(done.stdout), time.monotonic() + (20 if dvc else 0.3)
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert alive(child) != dvc
    if not dvc:
        os.kill(child, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_encoder_is_loaded_whatever_the_caller_s_default_type(tmp_path: Path) -> None:
    method = mae.Pretraining(mae.Config(patch=8, dim=16, depth=1, heads=2), (3, 16, 16))
    save_encoder(method.encoder(), tmp_path)
    torch.set_default_dtype(torch.float64)
    try:
        encoder = load_encoder(tmp_path)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


def test_too_little_memory_is_one_line() -> None:
    for ask in (
        lambda: np.empty(1 << 60, np.uint8), lambda: torch.empty(1 << 60, dtype=torch.uint8)
    ):  # fmt: skip
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            ask()
        message = explain(caught.value)
        assert "1152921504606846976" in message or "1.00 EiB" in message
        assert "lower `batch_size`" in message and "\n" not in message
    assert explain(RuntimeError("a bug")) == ""


def test_a_limit_too_low_for_the_libraries_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.pretrain", "x"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("error: out of memory as libraries load"), line


def test_a_torn_lock_of_dvc_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "rwlock"
    repro.remove_torn_lock(path)
    path.write_text('{"write": {}, "read": {}}')
    repro.remove_torn_lock(path)
    assert path.exists()
    path.write_text('{"write": {"/')
    script = tmp_path / "dvc"  # at work in this folder
    script.write_text("import time; print(flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        repro.remove_torn_lock(path)
        other.kill()
    assert path.exists() and not capsys.readouterr().err
    repro.remove_torn_lock(path)
    assert not path.exists() and "torn by a DVC that was killed" in capsys.readouterr().err


def test_files_missing_in_dvc_s_cache_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the stages of params.yaml, where they were built here."""
    monkeypatch.chdir(tmp_path)
    lock, objects = tmp_path / "dvc.lock", tmp_path / "files/md5"
    assert repro.outs_not_in_cache(tmp_path, ["a"], lock) == []
    frames, report = (
        {"outs": [{"path": "artifacts/frames/x", "md5": "abcd.dir"}]},
        {"outs": [{"path": "page", "md5": "ef01"}]},
    )
    stages = {"collect@x": frames, "report": report, "other recipe's": report}
    lock.write_text(json.dumps({"schema": "2.0", "stages": stages}))
    with_unbuilt = ["collect@x", "report", "fit@y"]
    assert repro.outs_not_in_cache(tmp_path, with_unbuilt, lock) == []
    for place in ("files/md5/ab/cd.dir", "files/md5/ef/01", "files/md5/67/89", "page"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(json.dumps([{"md5": "6789", "relpath": "000.tar"}]))
    Path("artifacts/frames/x").mkdir(parents=True)
    assert repro.outs_not_in_cache(tmp_path, ["collect@x", "report"], lock) == []
    (objects / "67/89").unlink()
    (objects / "ef/01").unlink()
    missing = repro.outs_not_in_cache(tmp_path, ["collect@x", "report"], lock)
    assert missing == ["artifacts/frames/x", "page"]
    assert repro.outs_not_in_cache(tmp_path, ["collect@x"], lock) == ["artifacts/frames/x"]
