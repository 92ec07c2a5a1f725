"""Recipes: switching is free, edits are not lost, and smoke budgets are small."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from datasets.errors import FoveaError
from datasets.sealed import write_manifest
from pipeline import params
from pipeline.commands import recipe, smoke
from pipeline.config.tables import Entry
from pipeline.config.yaml_file import read_yaml


def test_switching_between_recipes_is_no_edit(tmp_path: Path) -> None:
    target = tmp_path / "params.yaml"
    for name in ("quick", "spirl", "quick"):
        recipe.use(name, target=target)
        assert target.read_bytes() == recipe.recipes()[name].read_bytes()


def test_without_a_name_every_recipe_is_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["recipe"])
    recipe.main()
    output = capsys.readouterr().out
    for name in recipe.recipes():
        assert re.search(rf"^{name}: \w", output, re.MULTILINE), name


def test_edits_are_kept_without_force(tmp_path: Path) -> None:
    target = tmp_path / "params.yaml"
    edited = recipe.recipes()["quick"].read_text().replace("count: 2000", "count: 3000")
    target.write_text(edited)
    with pytest.raises(FoveaError, match="FORCE=1"):
        recipe.use("spirl", target=target)
    assert target.read_text() == edited
    recipe.use("spirl", target=target, force=True)
    assert target.read_bytes() == recipe.recipes()["spirl"].read_bytes()


def test_committed_edits_may_be_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "params.yaml"
    target.write_text("my: own\n")
    who = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "mine"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    recipe.use("quick", target=target)
    assert target.read_bytes() == recipe.recipes()["quick"].read_bytes()


def test_an_unknown_recipe_is_refused_with_suggestions(tmp_path: Path) -> None:
    with pytest.raises(FoveaError, match="'spirl'"):
        recipe.use("sprl", target=tmp_path / "params.yaml")


def test_smoke_cuts_every_budget_but_keeps_smaller_values() -> None:
    path = recipe.recipes()["spirl"]
    small = smoke.shrink(read_yaml(path), params.load(path))
    assert small["frames"]["frostbite"]["count"] == smoke.TINY["count"]
    assert small["policies"]["frostbite-spirl"]["seeds"] == 1
    assert small["policies"]["frostbite-spirl"]["epsilon"] == 1.0
    assert "epsilon" not in small["frames"]["frostbite"]
    assert small["policies"]["frostbite-spirl"]["steps"] == smoke.TINY["steps"]
    assert small["policies"]["frostbite-spirl"]["features"] == {"max_ratio": 0.35}
    path = recipe.recipes()["visarl"]
    small = smoke.shrink(read_yaml(path), params.load(path))
    assert small["predictors"]["reach-picanet"]["size"] == 64
    path = recipe.recipes()["attention-objects"]
    small = smoke.shrink(read_yaml(path), params.load(path))
    assert (
        small["annotations"]["frostbite-objects"]["count"] < small["frames"]["frostbite"]["count"]
    )
    assert {"frostbite-mask-0", "frostbite-transporter-0", "frostbite-error"} <= set(small["exams"])


@pytest.mark.parametrize("name", sorted(recipe.recipes()))
def test_a_recipe_with_tiny_budgets_is_still_valid(tmp_path: Path, name: str) -> None:
    path, small = recipe.recipes()[name], tmp_path / "params.yaml"
    with small.open("w") as file:
        YAML().dump(smoke.shrink(read_yaml(path), params.load(path)), file)
    assert len(list(params.load(small)))


@pytest.mark.parametrize("name", ["spirl", "spirl-ablations", "visarl", "visarl-probe"])
def test_smoke_builds_one_of_entries_that_differ_in_numbers_or_the_game(name: str) -> None:
    checked = params.load(recipe.recipes()[name])
    alike = smoke.repeats(checked)
    small = smoke.shrink(read_yaml(recipe.recipes()[name]), checked)
    built = {f"{table}/{entry}" for table, entries in small.items() for entry in entries}
    assert built.isdisjoint(alike) and built | set(alike) == {entry.label for entry in checked}
    assert set(alike.values()) <= built
    # Another selection, padding, source of saliency, or key of its own is another shape.
    assert SHAPES[name] <= built and ALIKE[name] <= set(alike)


SHAPES = {
    "spirl": {f"policies/{name}" for name in
              ("frostbite-spirl", "frostbite-der", "frostbite-mae-all", "seaquest-pad-masked",
               "seaquest-pad-learned", "battlezone-steep", "battlezone-fixed")},
    "spirl-ablations": {"policies/frostbite-fixed-45", "policies/frostbite-pool-mean"},
    "visarl": {f"policies/reach-{arm}" for arm in
               ("cnn-rgb", "cnn-rgbs", "multimae-rgb", "visarl", "visarl-po", "visarl-error",
                "visarl-motion", "visarl-centre", "visarl-random", "visarl-global")}
    | {"encoders/reach-mae"},
    "visarl-probe": {f"encoders/reach-small-{arm}-s0" for arm in ("picanet", "error", "motion")},
}  # fmt: skip
ALIKE = {
    "spirl": {"policies/frostbite-der-p", "policies/mspacman-spirl", "frames/mspacman"},
    "spirl-ablations": {"policies/seaquest-pool-mean"},
    "visarl": {"policies/drawer-visarl", "encoders/door-mae", "frames/faucet"},
    "visarl-probe": {"encoders/drawer-small-rgb-s1"},
}


def test_smoke_builds_inputs_before_what_needs_them() -> None:
    todo = [tuple(words) for words in smoke.commands(params.load(recipe.recipes()["quick"]))]
    for first, then in (
        (("collect", "frostbite"), ("pretrain", "frostbite-mae")),
        (("fit", "frostbite-motion"), ("label", "frostbite-motion")),
        (("pretrain", "frostbite-mae"), ("train", "frostbite-spirl")),
        (("train", "frostbite-spirl"), ("evaluate", "frostbite-spirl")),
    ):
        assert todo.index(first) < todo.index(then)
    assert todo[-1] == ("report",)


def test_smoke_fails_if_every_seed_of_a_policy_failed(tmp_path: Path) -> None:
    """The policy's training alone does not fail: it prints a message and continues."""
    for name, failed in (("good", 1), ("bad", 2)):
        folder = tmp_path / "artifacts/policies" / name
        folder.mkdir(parents=True)
        metrics = {"seeds": 2, "failed": failed}
        write_manifest(folder / "manifest.json", {"metrics": metrics})
    with pytest.raises(FoveaError, match="smoke of quick: every seed of bad failed"):
        smoke._check_seeds("quick", tmp_path)


PAPER = ("frostbite", "spirl", "spirl-400k", "spirl-ablations")
SHARED = (  # build on one another
    PAPER,
    ("seaquest", "spirl"),
    ("frostbite-why", "frostbite"),
    ("visarl-saliency", "visarl-probe", "visarl-reduced"),
)


@pytest.mark.parametrize(
    ("name", "others"), [(name, family) for family in SHARED for name in family]
)
def test_entries_of_one_name_are_the_same_in_every_recipe_of_a_family(
    name: str, others: tuple[str, ...]
) -> None:
    """So DVC builds an artifact once for all of them."""
    mine = params.load(recipe.recipes()[name])
    for other in others:
        theirs = params.load(recipe.recipes()[other]).tables
        shared = [entry for entry in mine if entry.name in theirs[entry.table]]
        assert shared
        for entry in shared:
            assert entry == theirs[entry.table][entry.name]


def test_the_smallest_recipe_is_a_part_of_the_largest() -> None:
    whole = params.load(recipe.recipes()["spirl"]).tables
    for entry in params.load(recipe.recipes()["frostbite"]):
        assert whole[entry.table][entry.name] == entry


def test_no_policy_of_the_paper_is_trained_twice_under_two_names() -> None:
    trained: dict[str, str] = {}
    for name in PAPER:
        for entry in params.load(recipe.recipes()[name]).tables["policies"].values():
            settings = repr(entry.resolved(frozenset({"seeds"})))
            assert trained.setdefault(settings, entry.name) == entry.name


TASKS = {"reach": "reach", "drawer": "drawer-open", "faucet": "faucet-open", "door": "door-open"}


def settings(entry: Entry, *differ: str) -> dict[str, Any]:
    """An entry's settings, without some keys."""
    return {key: value for key, value in entry.resolved().items() if key not in differ}


@pytest.mark.parametrize("task", TASKS)
def test_visarl_s_arms_differ_in_one_key_each(task: str) -> None:
    tables = params.load(recipe.recipes()["visarl"]).tables
    policies, encoders = tables["policies"], tables["encoders"]
    mine = {name: entry for name, entry in policies.items() if name.startswith(f"{task}-")}
    assert len(mine) == 7 + 5
    assert {entry.keys.env for entry in mine.values()} == {f"metaworld/{TASKS[task]}"}
    alike = [settings(entry, "encoder", "features", "net") for entry in mine.values()]
    assert all(one == alike[0] for one in alike) and alike[0]["seeds"] == 3
    ours = encoders[f"{task}-multimae"]
    for source in ("error", "motion", "centre", "random"):
        other = encoders[f"{task}-multimae-{source}"]
        assert other.keys.data == f"saliency/{task}-{source}"
        assert settings(other, "data") == settings(ours, "data")
        assert policies[f"{task}-visarl-{source}"].keys.encoder == other.name
    assert settings(encoders[f"{task}-multimae-rgb"], "data", "modalities") == settings(
        ours, "data", "modalities"
    )
    changed = {
        f"{task}-visarl-po": {"use_saliency": False},
        f"{task}-visarl-global": {"pool": "global"},
    }
    for name, features in changed.items():
        assert policies[name].features == features and policies[name].keys.encoder == ours.name


@pytest.mark.parametrize("task", TASKS)
def test_the_probed_encoders_differ_in_saliency_and_seed_alone(task: str) -> None:
    """And none was trained on the frames that it is probed on."""
    tables = params.load(recipe.recipes()["visarl-probe"]).tables
    arms = ("rgb", "untrained", "picanet", "error", "motion", "centre", "random")
    entries = {
        (arm, seed): tables["encoders"][f"{task}-small-{arm}-s{seed}"]
        for arm in arms
        for seed in range(3)
    }
    free = ("data", "modalities", "seed", "base_lr")
    assert all(settings(e, *free) == settings(entries["rgb", 0], *free) for e in entries.values())
    for (arm, seed), entry in entries.items():
        assert entry.config.seed == seed
        assert entry.config.base_lr == (
            0 if arm == "untrained" else entries["rgb", 0].config.base_lr
        )
        assert (entry.config.modalities == "rgb") == (arm in ("rgb", "untrained"))
        if arm in ("rgb", "untrained"):
            assert entry.keys.data == f"frames/{TASKS[task]}"
            continue
        kind, labelled = entry.keys.data.split("/")
        keys = tables[kind][labelled].keys
        by = {"picanet": f"predictors/{TASKS[task]}-30", "error": f"encoders/{task}-small-mae"}
        by["motion"] = f"predictors/{TASKS[task]}-motion"
        assert keys.by == by.get(arm, f"predictors/{task}-small-{arm}")
        assert keys.frames == TASKS[task]
    training, unseen = tables["frames"][TASKS[task]], tables["frames"][f"{task}-unseen"]
    assert training.keys.env == unseen.keys.env and training.config.seed != unseen.config.seed
    assert settings(training, "seed", "streams", "count") == settings(
        unseen, "seed", "streams", "count"
    )
    assert unseen.keys.count / unseen.config.streams >= 100  # steps in which things are moved


def test_rainbow_updates_as_often_under_every_protocol() -> None:
    """100K updates of Table 10, and of Table 12 with any number of random steps before them."""
    for name in PAPER:
        for entry in params.load(recipe.recipes()[name]).tables["policies"].values():
            config = entry.config
            assert (config.steps - config.learn_start) // config.update_every in (98_400, 99_600)
