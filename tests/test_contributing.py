"""CONTRIBUTING.md's steps for a new method work, from the file to its contract tests and
a stage.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.conftest import CODE, Project, fresh_clone

TEXT = (CODE / "CONTRIBUTING.md").read_text("utf-8")


@pytest.mark.slow
def test_the_example_is_a_method(tmp_path: Path) -> None:
    (example,) = re.findall(r"(?ms)^```python\n(.*?)^```$", TEXT)
    fresh_clone(tmp_path)
    shutil.copytree(CODE / "tests", tmp_path / "tests")
    shutil.copy(CODE / "pyproject.toml", tmp_path)
    (tmp_path / "pretrain/saliency/edges.py").write_text(example)
    (tmp_path / "params.yaml").write_text(
        "{frames: {f: {env: atari/Breakout, source: random, count: 32, streams: 1}},"
        " predictors: {e: {data: frames/f, model: edges, radius: 1}},"
        " annotations: {}, saliency: {}, encoders: {}, policies: {}, exams: {}}"
    )
    tests = ["tests/contracts/test_saliency.py", "-k", "edges", "-q", "-p", "no:cacheprovider"]
    stages = [["-m", "pipeline.collect", "f"], ["-m", "pipeline.fit", "e"]]
    for command in (["-m", "pytest", *tests], *stages):
        run = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout + run.stderr
    assert (Project(tmp_path).artifacts / "predictors/e/manifest.json").exists()


def test_the_diagram_has_all_folders() -> None:
    drawing = TEXT[TEXT.index("┌") : TEXT.rindex("┘")]
    for package in ("datasets", "pretrain", "rl", "pipeline"):
        folders = {path.parent.name for path in (CODE / package).glob("*/*")} - {"__pycache__"}
        assert {name for name in folders if f"{name}/" not in drawing} == set()
