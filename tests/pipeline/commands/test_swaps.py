"""The stages that DVC runs again: only those that depend on the change. Each row of the README's
swap table, edits of code, and names of entries that must not reach DVC's commands.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.commands.recipe import recipes
from tests.pipeline.conftest import CODE, Project, dvc, with_python, write_stamps

ROW = re.compile(
    r"^\| (?P<to>[^|]+) \| `(?P<key>[a-z0-9.-]+): (?P<value>[^`]+)` \| (?P<runs>`.+`) \|$"
)
ROWS = [m for line in (CODE / "README.md").read_text().splitlines() if (m := ROW.match(line))]
SAC = {"train@drawer-visarl", "evaluate@drawer-visarl", "report"}
EXAMS = {f"exam@{name}" for name in ("drawer-picanet", "drawer-student")} | {
    "exam@mspacman-mask", "exam@mspacman-masked"
}  # fmt: skip
RAINBOW = {"train@frostbite-spirl", "evaluate@frostbite-spirl"} | {
    "train@frostbite-der", "evaluate@frostbite-der", "report"
}  # fmt: skip
# A comment in a file, and what runs again for it: what imports the file, and what follows.
COMMENTS = {
    "rl/agents/sac.py": SAC,
    "rl/agents/rainbow.py": RAINBOW,
    "rl/nets/deep_cnn.py": set(),  # no entry has it
    "pretrain/encoders/pixels.py": {"train@frostbite-der", "evaluate@frostbite-der", "report"},
    "pretrain/encoders/mae.py": {"pretrain@frostbite-mae"} | RAINBOW - {
        "train@frostbite-der", "evaluate@frostbite-der"
    },
    "datasets/annotation/simulated.py": {
        "annotate@drawer-open", "fit@drawer-picanet", "label@drawer-picanet", "fit@drawer-student",
        "label@drawer-student", "pretrain@drawer-multimae", "annotate@drawer-unseen", *EXAMS, *SAC,
    },
    "pipeline/exam.py": {*EXAMS, "report"},
    "datasets/checked.py": set(),  # decides nothing about results
    "pipeline/runtime/stage.py": set(),
}  # fmt: skip


def yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def set_key(written: dict[str, Any], key: str, value: Any) -> None:
    """`policies.frostbite-spirl.encoder`, or a whole new entry."""
    *path, last = key.split(".")
    for part in path:
        written = written[part]
    written[last] = value


def would_run(folder: Path, *targets: str) -> set[str]:
    """The stages that DVC would run after `code`, and all that depend on them."""
    write_stamps(folder)
    dvc(folder, "commit", "--force", "code")
    output = dvc(folder, "repro", "--dry", "--force-downstream", "--no-run-cache", *targets)
    return set(re.findall(r"Running stage '(.+?)'", output))


@pytest.fixture
def copy(committed: Project, tmp_path: Path) -> Path:
    shutil.copytree(committed.folder, tmp_path, dirs_exist_ok=True, symlinks=True)
    return tmp_path


def test_the_readme_has_a_swap_table() -> None:
    assert len(ROWS) >= 6


def test_nothing_changed_nothing_runs(committed: Project) -> None:
    assert "up to date" in dvc(committed.folder, "status")
    assert would_run(committed.folder) == set()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["key"])
def test_a_swap_runs_the_stages_in_the_readme(copy: Path, row: re.Match[str]) -> None:
    written = yaml().load((copy / "params.yaml").read_text())
    set_key(written, row["key"], yaml().load(row["value"]))
    with (copy / "params.yaml").open("w") as file:
        yaml().dump(written, file)
    assert would_run(copy) == set(re.findall(r"`([^`]+)`", row["runs"]))


def test_a_comment_runs_the_stages_that_import_the_file(copy: Path) -> None:
    for name, runs in COMMENTS.items():
        text = (copy / name).read_text()
        (copy / name).write_text(f"{text}# a comment\n")
        assert would_run(copy) == runs, name
        (copy / name).write_text(text)
    assert would_run(copy) == set()


def test_a_new_environment_needs_no_line_of_dvc_yaml(copy: Path) -> None:
    """It is one file, which is in the stamps of the entries that name it, and in no others."""
    atari, new = copy / "datasets/envs/atari.py", copy / "datasets/envs/arcade.py"
    shutil.copy(atari, new)
    assert would_run(copy) == set()
    params = (copy / "params.yaml").read_text()
    with pytest.MonkeyPatch.context() as patch:  # this process has no such file
        patch.setattr("datasets.envs.__path__", [str(copy / "datasets/envs")])
        (copy / "params.yaml").write_text(
            params.replace(
                "frostbite-der: {env: atari/Frostbite", "frostbite-der: {env: arcade/Frostbite"
            )
        )
        runs = {"train@frostbite-der", "evaluate@frostbite-der", "report"}
        assert would_run(copy) == runs
    stamp = (copy / "artifacts/.code/train-frostbite-der").read_text()
    assert "datasets/envs/arcade.py" in stamp and "datasets/envs/atari.py" not in stamp
    sys.modules.pop("datasets.envs.arcade")


def test_clicks_run_the_annotations_of_their_frames(copy: Path) -> None:
    for frames, runs in (("other", set[str]()), ("drawer-open", {"annotate@drawer-open"})):
        (copy / "datasets/clicks" / frames).mkdir(parents=True, exist_ok=True)
        (copy / "datasets/clicks" / frames / "alice.json").write_text("{}")
        assert {name for name in would_run(copy) if name.startswith("annotate")} == runs


def test_an_editor_s_lock_is_not_a_module(copy: Path) -> None:
    """It is a link without a target, in folders whose files are listed."""
    for name in ("pretrain/encoders/.#mae.py", "rl/nets/.#tokens.py", "pipeline/recipes/.#q.yaml",
                 "datasets/clicks/drawer-open/.#alice.json"):  # fmt: skip
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).symlink_to("me@host.1234:567")
    assert would_run(copy) == set()
    for command in ("pipeline.params", "pipeline.commands.recipe"):
        subprocess.run([sys.executable, "-m", command], cwd=copy, env=with_python(), check=True)


def test_one_stage_and_its_inputs(copy: Path) -> None:
    """`dvc repro train@frostbite-spirl` builds only the inputs of the policy, and runs `code`
    first.
    """
    text = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(text.replace("count: 2000", "count: 2100"))
    target = "train@frostbite-spirl"
    needed = {"collect@frostbite", "pretrain@frostbite-mae", target}
    before = dvc(copy, "repro", "--dry", target)
    assert re.findall(r"Running stage '(.+?)'", before)[0] == "code"
    assert would_run(copy, target) == needed


BAD = {
    "../../../victim": "a path outside",
    "../../victim": "a path inside",
    "..": "its table's folder",
    "$(touch X)": "a command",
    "'; touch X; '": "a command after a quote",
    "-x": "an option",
    "x" * 65: "too long for a file's name",
}


def test_bad_names_are_refused_before_dvc_acts(copy: Path) -> None:
    """All in one message, numbers and dates too; nothing is emptied, run or built."""
    text = (copy / "params.yaml").read_text()
    victims = [copy / "victim", copy.parent / f"{copy.name}-victim"]
    for victim in victims:
        victim.mkdir()
        (victim / "precious").write_text("kept")
    names = [*(f'"{name}"' for name in BAD if name != ".."), "12", "2024-01-01"]
    names.append(f'"../../../{victims[1].name}"')
    entry = "{env: atari/Frostbite, source: random, count: 2000}"
    lines = "".join(f"  {name}: {entry}\n" for name in names)
    (copy / "params.yaml").write_text(text.replace("frames:\n", f"frames:\n{lines}", 1))
    before = {path: path.read_bytes() for path in copy.glob("artifacts/*/*/*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=copy, env=with_python(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode != 0 and "failed to reproduce 'code'" in output, output
    assert output.count("a name is a string of a-z, 0-9 and '-'") == len(names), output
    assert re.findall(r"Running stage '(.+?)'", output) == ["code"]
    assert all((victim / "precious").read_text() == "kept" for victim in victims)
    assert not (copy / "X").exists()
    assert {path: path.read_bytes() for path in before if path.exists()} == before
    shutil.rmtree(victims[1])


@pytest.mark.parametrize("name", sorted(recipes()))
def test_dvc_reads_every_recipe(copy: Path, name: str) -> None:
    shutil.copy(recipes()[name], copy / "params.yaml")
    listed = dvc(copy, "stage", "list", "--names-only").split()
    written = yaml().load(recipes()[name].read_text())
    assert {f"train@{policy}" for policy in written["policies"]} <= set(listed)
    assert {f"collect@{frames}" for frames in written["frames"]} <= set(listed)


def test_switching_to_a_recipe_and_back_runs_nothing(copy: Path) -> None:
    shutil.copy(recipes()["spirl"], copy / "params.yaml")
    assert "collect@frostbite" in would_run(copy)
    shutil.copy(recipes()["quick"], copy / "params.yaml")
    assert would_run(copy) == set()
