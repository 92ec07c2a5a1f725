"""Each row of the README's swap table: only what depends on the change runs again."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.commands.recipe import recipes
from tests.pipeline.conftest import CODE, Project, dvc

ROW = re.compile(
    r"^\| (?P<to>[^|]+) \| `(?P<key>[a-z0-9.-]+): (?P<value>[^`]+)` \| (?P<runs>`.+`) \|$"
)
ROWS = [m for line in (CODE / "README.md").read_text().splitlines() if (m := ROW.match(line))]


def yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def set_key(written: dict[str, Any], key: str, value: Any) -> None:
    """`policies.frostbite-spirl.encoder`, or a whole new entry."""
    *path, last = key.split(".")
    for part in path:
        written = written[part]
    written[last] = value


def would_run(folder: Path) -> set[str]:
    output = dvc(folder, "repro", "--dry", "--force-downstream", "--no-run-cache")
    return set(re.findall(r"Running stage '(.+?)'", output))


@pytest.fixture
def copy(committed: Project, tmp_path: Path) -> Path:
    shutil.copytree(committed.folder, tmp_path, dirs_exist_ok=True, symlinks=True)
    return tmp_path


def test_the_readme_has_a_swap_table() -> None:
    assert len(ROWS) >= 6


def test_nothing_changed_nothing_runs(committed: Project) -> None:
    assert would_run(committed.folder) == set()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["key"])
def test_a_swap_runs_what_the_readme_says(copy: Path, row: re.Match[str]) -> None:
    written = yaml().load((copy / "params.yaml").read_text())
    set_key(written, row["key"], yaml().load(row["value"]))
    with (copy / "params.yaml").open("w") as file:
        yaml().dump(written, file)
    assert would_run(copy) == set(re.findall(r"`([^`]+)`", row["runs"]))


def test_one_stage_and_what_it_needs(copy: Path) -> None:
    """`dvc repro train@frostbite-der` builds nothing that the policy does not need."""
    text = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(text.replace("count: 2000", "count: 2100"))
    output = dvc(copy, "repro", "--dry", "--force-downstream", "train@frostbite-der")
    ran = set(re.findall(r"Running stage '(.+?)'", output))
    assert ran == {"collect@frostbite", "pretrain@frostbite-pixels", "train@frostbite-der"}


@pytest.mark.parametrize("name", sorted(recipes()))
def test_dvc_reads_every_recipe(copy: Path, name: str) -> None:
    shutil.copy(recipes()[name], copy / "params.yaml")
    listed = dvc(copy, "stage", "list", "--names-only").split()
    written = yaml().load(recipes()[name].read_text())
    assert {f"train@{policy}" for policy in written["policies"]} <= set(listed)
    assert {f"collect@{frames}" for frames in written["frames"]} <= set(listed)


def test_switching_recipes_there_and_back_leaves_nothing_to_do(copy: Path) -> None:
    shutil.copy(recipes()["spirl"], copy / "params.yaml")
    assert "collect@frostbite" in would_run(copy)
    shutil.copy(recipes()["quick"], copy / "params.yaml")
    assert would_run(copy) == set()
