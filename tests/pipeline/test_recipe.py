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
