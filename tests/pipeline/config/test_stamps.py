"""Code stamps: written after params.yaml was checked as a whole; then a stage reads its entry
alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datasets.errors import FoveaError
from pipeline import params
from pipeline.commands.recipe import recipes
from pipeline.config.tables import Params
from tests.pipeline.test_params import GOOD


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an empty project, as the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_mistake_in_another_entry_is_refused(here: Path) -> None:
    """Also if the file was valid before."""
    for text in (GOOD, GOOD.replace("patch: 16", "patches: 16")):
        Path("params.yaml").write_text(text)
        if text == GOOD:
            assert params.entry_of("collect", "frames", "frostbite").keys.count == 2000
        else:
            with pytest.raises(FoveaError, match=r"encoders\.frostbite-mae\.patches: unknown key"):
                params.entry_of("collect", "frames", "frostbite")


def test_the_whole_file_is_checked_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again after a change of code that an entry runs; entries read alone are equal."""
    Path("params.yaml").write_text(recipes()["quick"].read_text())
    checked = params.write_stamps()
    load = params.load
    monkeypatch.setattr(params, "load", lambda: pytest.fail("checked again"))
    for entry in checked:
        for stage in params.stages_of(entry):
            assert params.entry_of(stage, entry.table, entry.name) == entry
    stamp = params.STAMPS / "train-frostbite-der"
    stamp.write_text("")
    checks: list[Params] = []

    def check() -> Params:
        checks.append(load())
        return checks[-1]

    monkeypatch.setattr(params, "load", check)
    params.entry_of("train", "policies", "frostbite-der")
    assert len(checks) == 1 and stamp.read_text()
    with pytest.raises(FoveaError, match=r"no entry 'drawr' in frames.*drawer"):
        params.entry_of("collect", "frames", "drawr")
    with pytest.raises(FoveaError, match="encoders/pixels: is committed; there is nothing"):
        params.entry_of("pretrain", "encoders", "pixels")


def test_there_is_a_stamp_for_each_entry(here: Path) -> None:
    Path("params.yaml").write_text(GOOD)
    params.write_stamps()
    there = {path.name for path in params.STAMPS.iterdir()}
    assert there == {
        "checked", "params.yaml", "report", "collect-frostbite", "pretrain-frostbite-mae",
        "train-frostbite-spirl", "evaluate-frostbite-spirl",
    }  # fmt: skip
    Path("params.yaml").write_text(GOOD.replace("frostbite-spirl", "mine"))
    params.write_stamps()
    assert {path.name for path in params.STAMPS.iterdir()} - there == {
        "train-mine", "evaluate-mine"
    }  # fmt: skip
    assert not (params.STAMPS / "train-frostbite-spirl").exists()


def test_a_checked_file_imports_no_torch(here: Path) -> None:
    Path("params.yaml").write_text(GOOD)
    params.write_stamps()
    code = (
        "import sys, pipeline.collect, pipeline.annotate, pipeline.params as params; "
        "params.entry_of('collect', 'frames', 'frostbite'); print('torch' in sys.modules)"
    )
    root = str(Path(params.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"


def test_stages_may_begin_at_once(here: Path) -> None:
    Path("params.yaml").write_text(GOOD)
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(params.write_stamps) for _ in range(24)]
    assert {write.exception() for write in done} == {None}
    assert not [path for path in params.STAMPS.iterdir() if path.name.endswith(".tmp")]
