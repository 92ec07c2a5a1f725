"""`make verify` shows all that it promises, and fails where something is not as it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commands import verify
from tests.pipeline.conftest import CODE


@pytest.mark.slow
def test_everything_is_shown_and_good(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.commands.verify"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert all(line.endswith(": ok") for line in lines), done.stdout
    for number in ("790784", "645093", "409167", "1149861", "14880"):
        assert f": {number}, expected {number}: ok" in done.stdout
    assert len(re.findall(r"^shard .*: ([0-9a-f]{64}), expected \1: ok$", done.stdout, re.M)) == 2
    kept = [int(step) for step in re.findall(r"killed, step \[(\d+)\] of 32 .*: -9,", done.stdout)]
    assert len(kept) == 2 and 0 < kept[0] < kept[1] < 32
    assert re.search(r"^encoder after .*: ([0-9a-f]{64}), expected \1: ok$", done.stdout, re.M)
    assert re.search(r"^exported tokens .*: [0-9.e-]+, expected <= 1e-5: ok$", done.stdout, re.M)
    assert list(tmp_path.iterdir()) == [], "something stayed behind"


def test_what_is_not_so_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verify, "failed", [])
    verify.show("one", 1, 1)
    verify.show("two", 1, 2)
    verify.show("three", 0.5, "<= 0.1", False)
    assert verify.failed == ["two", "three"]
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].endswith(": ok")
    assert all(line.endswith(": FAILED") for line in shown[1:])
