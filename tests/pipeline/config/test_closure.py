"""A code stamp names every file of ours that a stage's output for an entry depends on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.files import sha256_file
from pipeline import params
from pipeline.commands.recipe import recipes
from pipeline.config import closure
from pipeline.config.tables import Entry, Exams, Saliency
from pipeline.runtime.artifact import Artifact
from pipeline.runtime.stage import fingerprint, modules_in

QUICK = params.load(recipes()["quick"])


def names(stamp: str) -> set[str]:
    """The files of a stamp."""
    return {line.split(" ", 1)[1] for line in stamp.splitlines()}


def test_a_stamp_has_a_line_of_digest_and_path_for_each_file() -> None:
    lines = closure.stamp("collect", QUICK.entry("frames", "frostbite")).splitlines()
    assert lines == sorted(lines, key=lambda line: line.split(" ", 1)[1])
    assert f"{sha256_file(Path('pipeline/collect.py'))} pipeline/collect.py" in lines


@pytest.mark.parametrize(
    ("stage", "label", "has", "has_not"),
    [
        ("collect", "frames/frostbite", {"datasets/sources/random.py", "datasets/envs/atari.py"},
         {"datasets/sources/expert.py", "datasets/envs/metaworld.py", "rl/agents/sac.py"}),
        ("fit", "predictors/drawer-picanet", {"pretrain/saliency/picanet.py", "pipeline/fit.py"},
         {"pretrain/saliency/student.py", "pipeline/label.py"}),
        ("pretrain", "encoders/frostbite-mae", {"pretrain/encoders/mae.py"},
         {"pretrain/encoders/multimae.py", "rl/agent.py"}),
        ("train", "policies/frostbite-spirl", {"rl/agents/rainbow.py", "rl/nets/tokens.py"},
         {"rl/nets/data_efficient_cnn.py", "rl/agents/sac.py", "pretrain/encoders/mae.py"}),
        ("exam", "exams/mspacman-mask", {"pipeline/exam.py", "datasets/annotation/simulated.py"},
         {"pretrain/encoders/attention.py", "rl/policy.py", "pipeline/results/html.py"}),
        ("evaluate", "policies/frostbite-der",
         {"rl/nets/data_efficient_cnn.py", "pretrain/encoders/pixels.py"}, {"rl/nets/tokens.py"}),
    ],
)  # fmt: skip
def test_only_components_that_an_entry_names_are_in_its_stamp(
    stage: str, label: str, has: set[str], has_not: set[str]
) -> None:
    files = names(closure.stamp(stage, QUICK.entry(*label.split("/"))))
    assert has <= files
    assert not has_not & files
    assert not closure.PLUMBING & files


def test_frames_of_a_learner_depend_on_rl() -> None:
    checked = params.load(recipes()["visarl-state"])
    files = names(closure.stamp("collect", checked.entry("frames", "drawer-open-learned")))
    assert {"pipeline/parts/learner.py", "rl/agents/sac.py", "rl/nets/vector.py"} <= files


def test_who_examines_a_policy_plays_it_and_nobody_else() -> None:
    """And whoever simulates the second annotator is in every exam's stamp."""
    stamps = {
        by: names(closure.stamp("exam", Entry("exams", "x", Exams("annotations/x", by), None)))
        for by in ("policies/p", "encoders/e")
    }
    for files in stamps.values():
        assert {"pipeline/exam.py", "datasets/annotation/simulated.py"} <= files
    more = stamps["policies/p"] - stamps["encoders/e"]
    assert more >= {"pipeline/parts/watched.py", "rl/watch.py", "rl/occlusion.py"}
    labels = names(
        closure.stamp("label", Entry("saliency", "x", Saliency("x", "policies/p"), None))
    )
    assert "rl/watch.py" in labels and "rl/occlusion.py" not in labels
    assert not {name for name in stamps["encoders/e"] if name.startswith("rl/")}


IMPORT = """
import importlib, json, sys
ours = ("datasets", "pretrain", "rl", "pipeline")
for roots in json.load(sys.stdin):
    for name in [name for name in sys.modules if name.split(".")[0] in ours]:
        del sys.modules[name]
    for name in roots:
        importlib.import_module(name)
    files = (m.__file__ for n, m in sys.modules.items() if n.split(".")[0] in ours)
    print(json.dumps([file for file in files if file]))
"""


def test_a_stamp_covers_the_interpreter_s_imports() -> None:
    """For every stage with every choice of components in the recipes, except the code that only
    runs stages.
    """
    checked = [params.load(path) for path in recipes().values()]
    modules = {
        (closure.module_of(stage), *closure.components(entry))
        for recipe in checked for entry in recipe for stage in params.stages_of(entry)
    }  # fmt: skip
    choices = [("pipeline.runtime.stage",), *sorted({("pipeline.report",), *modules})]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], input=json.dumps(choices), cwd=closure.CODE,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    plumbing: set[str] = set()  # and what is imported for it alone
    for roots, line in zip(choices, done.stdout.splitlines(), strict=True):
        imported = {Path(file).relative_to(closure.CODE).as_posix() for file in json.loads(line)}
        runs = {name for name in imported if not name.endswith("__init__.py")}
        stamp = {path.as_posix() for path in closure.files(roots, closure.CODE)}
        plumbing = plumbing or runs
        assert runs - stamp <= plumbing, roots


def test_the_modules_that_load_an_artifact() -> None:
    """An encoder's own file and, for the predictor that it carries, the predictor's."""
    header = {"model": "multimae", "config": {"dim": 4}, "saliency": {"model": "student"}}
    files = {path.as_posix() for path in closure.files(closure.modules_of(header), closure.CODE)}
    assert {"pretrain/encoders/multimae.py", "pretrain/saliency/student.py"} <= files
    assert "pretrain/encoders/mae.py" not in files
    assert closure.modules_of({}) == []
    policy = closure.modules_of({"agent": {"name": "a2c"}, "net": {"name": "masked_cnn"}})
    assert policy == ["rl.agents.a2c", "rl.nets.masked_cnn"]


def test_the_modules_that_load_inputs_are_in_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/config.json").write_text('{"model": "mae"}')
    artifact = Artifact("saliency/x", tmp_path, {"files": {"source/config.json": ""}}, "")
    modules = modules_in(artifact)
    assert "pretrain.encoders.mae" in modules
    entry = QUICK.entry("policies", "frostbite-spirl")
    codes = [closure.stamp("train", entry, also) for also in (modules, [])]
    assert len({fingerprint("train", {}, [artifact], code) for code in codes}) == 2


def test_clicks_are_in_the_stamp_of_annotations_of_their_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry: Entry = QUICK.entry("annotations", "drawer-open")
    monkeypatch.chdir(tmp_path)
    before = closure.stamp("annotate", entry)
    clicks = tmp_path / "datasets/clicks/drawer-open"
    clicks.mkdir(parents=True)
    (clicks / "alice.json").write_text("{}")
    after = closure.stamp("annotate", entry)
    assert names(after) - names(before) == {"datasets/clicks/drawer-open/alice.json"}


def test_imports_are_followed(tmp_path: Path) -> None:
    (tmp_path / "rl" / "agents").mkdir(parents=True)
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "train.py").write_text(
        "def f():\n    from rl import loops\nimport json\n"
    )
    (tmp_path / "rl" / "__init__.py").write_text('"""Runs nothing."""\n')
    (tmp_path / "rl" / "agents" / "__init__.py").write_text("NAMES = ()\n")
    (tmp_path / "rl" / "agents" / "sac.py").write_text("")
    (tmp_path / "rl" / "loops.py").write_text("from . import replay\nfrom rl.agents import sac\n")
    (tmp_path / "rl" / "replay.py").write_text("KEPT = 1\n")
    (tmp_path / "rl" / "unused.py").write_text("")
    files = {path.as_posix() for path in closure.files(["pipeline.train"], tmp_path)}
    assert files == {"pipeline/train.py", "rl/agents/__init__.py", "rl/loops.py", "rl/replay.py"}
