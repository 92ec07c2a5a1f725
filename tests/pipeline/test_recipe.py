"""Recipes: switching is free, edits are not lost, smoke budgets are small."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from datasets.errors import FoveaError
from pipeline import params, recipe, smoke


def test_switching_between_recipes_is_no_edit(tmp_path: Path) -> None:
    target = tmp_path / "params.yaml"
    for name in ("quick", "spirl", "quick"):
        recipe.use(name, target=target)
        assert target.read_bytes() == recipe.recipes()[name].read_bytes()


def test_edits_are_kept_unless_told_otherwise(tmp_path: Path) -> None:
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


def test_an_unknown_recipe_is_refused_with_near_misses(tmp_path: Path) -> None:
    with pytest.raises(FoveaError, match="'spirl'"):
        recipe.use("sprl", target=tmp_path / "params.yaml")


def test_smoke_cuts_every_budget_but_keeps_what_is_smaller() -> None:
    path = recipe.recipes()["spirl"]
    small = smoke.shrink(params.read_yaml(path), params.load(path))
    assert small["frames"]["mspacman"]["count"] == smoke.TINY["count"]
    assert small["policies"]["frostbite-spirl"]["seeds"] == 1
    assert small["policies"]["frostbite-spirl"]["epsilon"] == 1.0
    assert "epsilon" not in small["frames"]["mspacman"]
    assert small["policies"]["frostbite-spirl"]["steps"] == smoke.TINY["steps"]
    assert small["policies"]["frostbite-spirl"]["features"] == {"max_ratio": 0.35}


def test_smoke_builds_one_of_policies_that_differ_in_numbers_only() -> None:
    checked = params.load(recipe.recipes()["spirl"])
    alike = smoke.repeats(checked)
    assert alike["frostbite-der-p"] == "frostbite-der"
    built = set(smoke.shrink(params.read_yaml(recipe.recipes()["spirl"]), checked)["policies"])
    assert built.isdisjoint(alike) and built | set(alike) == set(checked.tables["policies"])
    # Another game, selection, padding or key of its own is another shape.
    assert {"mspacman-spirl", "frostbite-mae-all", "seaquest-pad-masked", "seaquest-pad-learned",
            "battlezone-steep", "battlezone-fixed"} <= built  # fmt: skip


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


PAPER = ("frostbite", "spirl", "spirl-400k", "spirl-ablations")


@pytest.mark.parametrize("name", PAPER)
def test_entries_of_one_name_are_the_same_in_every_recipe_of_the_paper(name: str) -> None:
    """So DVC builds an artifact once for all of them."""
    mine = params.load(recipe.recipes()[name])
    for other in PAPER:
        theirs = params.load(recipe.recipes()[other]).tables
        for entry in mine:
            if entry.name in theirs[entry.table]:
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


def test_rainbow_updates_as_often_under_every_protocol() -> None:
    """Table 10's 100K updates, and Table 12: as many with a random start of any length."""
    for name in PAPER:
        for entry in params.load(recipe.recipes()[name]).tables["policies"].values():
            config = entry.config
            assert (config.steps - config.learn_start) // config.update_every in (98_400, 99_600)
