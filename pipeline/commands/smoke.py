"""Build the entries of a recipe at tiny budgets: `make smoke NAME=spirl`.

A smoke test: it shows in minutes that a recipe's entries are valid and its stages fit together; its
scores mean nothing. Of entries that differ only in numbers, such as `max_ratio`, or in the game, or
in inputs that do, the first is built. It works in `artifacts/.smoke/<recipe>/`, stage by stage,
without DVC.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from datasets import envs
from datasets.errors import FoveaError
from datasets.sealed import read_manifest
from pipeline import params
from pipeline.commands.recipe import recipes
from pipeline.config import tables
from pipeline.config.typed import closest
from pipeline.config.yaml_file import read_yaml
from pipeline.runtime.artifact import ROOT, STAGES
from pipeline.runtime.stage import plain_errors

CODE = Path(__file__).parents[2]
# Upper bounds by key; an entry with less keeps it.
TINY = {
    "count": 96,
    "size": 64,  # of a predictor's input
    "epochs": 1,
    "warmup_epochs": 0,
    "steps": 96,
    "learn_start": 48,
    "n_step": 4,
    "replay_capacity": 96,
    "num_envs": 4,
    "unroll": 4,
    "checkpoint_every": 96,
    "streams": 2,
    "seeds": 1,
    "games": 1,
}
ANNOTATED = 32  # annotated frames: not every frame has an object
# An untrained policy may do nothing until the horizon, 27,000 steps; random actions end its game.
EPSILON = 1.0


def shrink(recipe: Mapping[str, Any], checked: tables.Params) -> dict[str, Any]:
    """A recipe's tables with every budget, defaults included, at most TINY, without `repeats`."""
    alike, annotated = repeats(checked), TINY | {"count": ANNOTATED}
    return {
        table: {
            name: dict(entry)
            | {
                key: min(value, (annotated if table == "annotations" else TINY)[key])
                for key, value in checked.entry(table, name).resolved().items()
                if key in TINY
            }
            | ({"epsilon": EPSILON} if table == "policies" else {})
            for name, entry in entries.items()
            if f"{table}/{name}" not in alike
        }
        for table, entries in recipe.items()
    }


def repeats(checked: tables.Params) -> dict[str, str]:
    """Label -> label of the earlier entry of the same shape, except for inputs of other entries."""
    first: dict[str, str] = {}
    earlier = {}
    for entry in _build_order(checked):
        shape = str(_shape(entry, checked))
        if first.setdefault(shape, entry.label) != entry.label:
            earlier[entry.label] = first[shape]
    for entry in reversed(_build_order(checked)):
        if entry.label not in earlier:
            for label in entry.inputs().values():
                earlier.pop(label, None)
    return earlier


def _shape(entry: tables.Entry, checked: tables.Params) -> Any:
    """An entry's settings without numbers, and with its inputs' shapes in place of their names."""
    settings = entry.resolved()
    for key, label in entry.inputs().items():
        settings[key] = _shape(checked.entry(*label.split("/")), checked)
    if "env" in settings:
        settings["env"] = envs.rendering(settings["env"])  # without the game
    return entry.table, _without_numbers(settings)


def _without_numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted((key, _without_numbers(inner)) for key, inner in value.items())
    return "number" if type(value) in (int, float) else value  # not bool, an int to isinstance


def commands(checked: tables.Params) -> list[list[str]]:
    """Stage and entry of everything to build, inputs first."""
    stages = [[STAGES[entry.table], entry.name] for entry in _build_order(checked)]
    stages += [["evaluate", name] for name in checked.tables["policies"]]
    return [*stages, ["report"]]


def _build_order(checked: tables.Params) -> list[tables.Entry]:
    """All entries, inputs first. Raises FoveaError for a cycle."""
    order: list[tables.Entry] = []
    waiting = list(checked)
    committed = {f"encoders/{name}" for name in tables.COMMITTED}
    while waiting:
        available = {entry.label for entry in order} | committed
        ready = [e for e in waiting if set(e.inputs().values()) <= available]
        if not ready:
            names = ", ".join(entry.label for entry in waiting)
            raise FoveaError(f"params: these entries need each other in a cycle: {names}")
        order += ready
        waiting = [entry for entry in waiting if entry not in ready]
    return order


def smoke(name: str) -> Path:
    """Build a recipe at tiny budgets, from nothing; returns its report's page.

    Raises:
        FoveaError: there is no such recipe, or one of its stages failed.
    """
    known = recipes()
    if name not in known:
        raise FoveaError(f"no recipe {name!r} in pipeline/recipes{closest(name, known)}")
    checked = params.load(known[name])
    small = shrink(read_yaml(known[name]), checked)
    place = (ROOT / ".smoke" / name).absolute()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    with (place / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(small, file)
    alike = len(repeats(checked))
    print(f"{alike} of {len(list(checked))} entries left out, since others are alike", flush=True)
    todo = commands(params.load(place / "params.yaml"))
    for number, (stage, *names) in enumerate(todo, 1):
        label = " ".join([stage, *names])
        print(f"[{number}/{len(todo)}] {label}", flush=True)
        run = subprocess.run(
            [sys.executable, "-m", f"pipeline.{stage}", *names],
            cwd=place,
            env=os.environ | {"PYTHONPATH": str(CODE)},
            check=False,
        )
        if run.returncode:
            raise FoveaError(f"smoke of {name}: stage `{label}` failed, in {place}")
    _check_seeds(name, place)
    return place / ROOT / "report" / "index.html"


def _check_seeds(name: str, place: Path) -> None:
    """Raise FoveaError for a policy of which every seed failed, which a stage would publish."""
    for path in sorted((place / ROOT / "policies").glob("*/manifest.json")):
        metrics = read_manifest(path)["metrics"]
        if metrics["failed"] == metrics["seeds"]:
            policy = path.parent.name
            raise FoveaError(f"smoke of {name}: every seed of {policy} failed, in {place}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.commands.smoke", description=__doc__)
    parser.add_argument("name", help=f"one of: {', '.join(recipes())}")
    with plain_errors():
        page = smoke(parser.parse_args().name)
    print(f"all built; the report: {page}")


if __name__ == "__main__":
    main()
