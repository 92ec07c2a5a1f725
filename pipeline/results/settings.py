"""Whether what was measured had a recipe's own settings."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline import params
from pipeline.commands.recipe import recipes
from pipeline.config.tables import EVALUATION_KEYS, Entry, Params

SMALL = ("quick",)  # recipes that only show that the pipeline works
FREE = EVALUATION_KEYS | {"seeds"}  # of a policy: stand in no trained one, or change no seed


@functools.cache
def checked_recipes() -> dict[str, Params]:
    """Every recipe whose runs count, by name."""
    return {name: params.load(path) for name, path in recipes().items() if name not in SMALL}


def home_of(table: str, name: str, beside: Iterable[str] = ()) -> Params | None:
    """The recipe that has an entry and, of several, most of the labels `beside`; or None."""
    entries = [label.split("/") for label in beside]
    homes = [recipe for recipe in checked_recipes().values() if name in recipe.tables[table]]
    return max(homes, key=lambda r: sum(n in r.tables[t] for t, n in entries), default=None)


def differences(found: Mapping[str, Any], wanted: Entry) -> list[str]:
    """Keys in which a kept entry is not the recipe's.

    A key that it lacks was added to the code later, and its default is what the code did before.
    """
    parts = [part for part in (wanted.keys, wanted.config) if part is not None]
    fields = (field for part in parts for field in dataclasses.fields(part))
    # As JSON has them, like what was kept: a tuple has become a list.
    defaults = {field.name: _as_json(field.default) for field in fields}
    written = _as_json(wanted.resolved(FREE))
    lost = [key for key, value in written.items() if found.get(key, defaults.get(key)) != value]
    return lost + [key for key in found if key not in written and key not in FREE]


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda _: None))


def differences_of_all(made_from: Mapping[str, Mapping[str, Any]], recipe: Params) -> list[str]:
    """The same of every artifact that one was made from (artifact.lineage()), as `label: keys`."""
    found = []
    for label, made in made_from.items():
        table, name = label.split("/")
        wanted = recipe.tables[table].get(name)
        changed = differences(made["entry"], wanted) if wanted else ["no such entry"]
        found += [f"{label}: {', '.join(changed)}"] if changed else []
    return found
