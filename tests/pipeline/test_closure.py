"""dvc.yaml lists what every stage imports: DVC itself does not follow imports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline import params
from pipeline.config import closure
from pipeline.runtime.artifact import STAGES, Artifact
from pipeline.runtime.stage import carried, fingerprint

DVC = YAML(typ="safe", pure=True).load(Path("dvc.yaml").read_text())["stages"]


def instances() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every stage of dvc.yaml with every entry of the recipes that it would be run for."""
    seen = set()
    for path in sorted(Path("pipeline/recipes").glob("*.yaml")):
        for entry in params.load(path):
            stages = [STAGES[entry.table], *(["evaluate"] if entry.table == "policies" else [])]
            for stage in stages:
                words = tuple(closure.words(stage, entry.resolved()))
                if (stage, words) not in seen:
                    seen.add((stage, words))
                    yield stage, entry.resolved()


def listed(stage: str, entry: dict[str, Any]) -> set[str]:
    """The files of ours among a stage's deps, templates filled in from the entry."""
    found = set()
    for dep in DVC[stage]["do"]["deps"]:
        for key, value in entry.items():
            dep = dep.replace(f"${{item.{key}}}", str(value))
        found.add(dep)
    return {dep for dep in found if dep.endswith((".py", ".json", ".html", ".css"))}


def test_what_an_artifact_needs_to_be_loaded() -> None:
    """An encoder's own file and, of what it carries, the predictor's."""
    header = {"model": "multimae", "config": {"dim": 4}, "saliency": {"model": "student"}}
    files = {path.as_posix() for path in closure.files(closure.carried(header))}
    assert {"pretrain/encoders/multimae.py", "pretrain/saliency/student.py"} <= files
    assert "pretrain/encoders/mae.py" not in files
    assert closure.carried({}) == []


def test_what_its_inputs_are_loaded_with_decides_what_a_run_makes(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/config.json").write_text('{"model": "mae"}')
    made = Artifact("saliency/x", tmp_path, {"files": {"source/config.json": ""}}, "")
    words = carried(made)
    assert "pretrain.encoders.mae" in words
    prints = {fingerprint("train", {"agent": "rainbow"}, {}, w) for w in (words, [])}
    assert len(prints) == 2


@pytest.mark.parametrize(("stage", "entry"), list(instances()))
def test_deps_cover_the_imports(stage: str, entry: dict[str, Any]) -> None:
    run = {p.as_posix() for p in closure.files([f"pipeline.{stage}", *closure.words(stage, entry)])}
    assert run - listed(stage, entry) == set(), "imported, but DVC would not see a change in them"


@pytest.mark.parametrize("annotator", ["human", "simulated"])
def test_deps_cover_every_annotator(annotator: str) -> None:
    """No recipe is made by people."""
    test_deps_cover_the_imports("annotate", {"annotator": annotator, "frames": "reach"})


@pytest.mark.parametrize("stage", sorted(set(DVC) - {"report"}))
def test_deps_are_there(stage: str) -> None:
    gone = [d for d in DVC[stage]["do"]["deps"] if "$" not in d and not Path(d).exists()]
    assert [d for d in gone if not d.startswith("artifacts/")] == []


def test_report_lists_its_imports() -> None:
    run = {path.as_posix() for path in closure.files(["pipeline.report"])}
    assert run - set(DVC["report"]["deps"]) == set()


def test_imports_are_followed(tmp_path: Path) -> None:
    (tmp_path / "rl" / "agents").mkdir(parents=True)
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "train.py").write_text(
        "def f():\n    from rl import loops\nimport json\n"
    )
    (tmp_path / "rl" / "__init__.py").write_text('"""Runs nothing."""\n')
    (tmp_path / "rl" / "agents" / "__init__.py").write_text("WORDS = ()\n")
    (tmp_path / "rl" / "agents" / "sac.py").write_text("")
    (tmp_path / "rl" / "loops.py").write_text("from . import replay\nfrom rl.agents import sac\n")
    (tmp_path / "rl" / "replay.py").write_text("KEPT = 1\n")
    (tmp_path / "rl" / "unused.py").write_text("")
    found = {path.as_posix() for path in closure.files(["pipeline.train"], tmp_path)}
    assert found == {"pipeline/train.py", "rl/agents/__init__.py", "rl/loops.py", "rl/replay.py"}
