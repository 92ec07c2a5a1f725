"""The contract of every component's file, checked over all files, so that a new file needs no entry
in a list. A component of params.yaml is a file of one of these folders; the stages use only the
names that every such file exports.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.config import typed
from tests.contracts.components import CODE, COMPONENTS, PACKAGES, REQUIRED_FIELDS, game_of


def test_every_folder_has_components() -> None:
    assert {name.rsplit(".", 1)[0] for name in COMPONENTS} == set(PACKAGES)


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_is_one_documented_file(component: str) -> None:
    """It has a docstring and imports no other component, so it can be read alone."""
    source = (CODE / component.replace(".", "/")).with_suffix(".py")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    assert len(ast.get_docstring(tree) or "") > 40
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            imported |= {str(node.module)}
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert imported.isdisjoint(set(COMPONENTS))


def configs() -> Iterator[tuple[str, type]]:
    for component in COMPONENTS:
        for name in ("Config", "Features"):
            if hasattr(importlib.import_module(component), name) or name == "Config":
                yield component, getattr(importlib.import_module(component), name)


CONFIGS = pytest.mark.parametrize(("component", "config"), list(configs()))


def default(component: str, config: Any) -> Any:
    """The Config at its defaults, with the given fields."""
    required = {"game": game_of(component)} if component.startswith("datasets.envs.") else {}
    return config(**required)


@CONFIGS
def test_settings_are_a_flat_frozen_dataclass_of_defaults(component: str, config: Any) -> None:
    """Written into a manifest as JSON and read by the reader of params.yaml, they are equal."""
    assert isinstance(config, type) and dataclasses.is_dataclass(config)
    required = {
        field.name
        for field in dataclasses.fields(config)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    assert required == REQUIRED_FIELDS.get(component.rsplit(".", 1)[0], set())
    defaults = default(component, config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        defaults.anything = 1
    written = json.loads(json.dumps(dataclasses.asdict(defaults), allow_nan=False))
    assert not any(isinstance(value, dict) for value in written.values())
    mistakes: list[str] = []
    assert typed.read_into([config], written, mistakes) == [defaults]
    assert mistakes == []


@CONFIGS
def test_impossible_settings_are_refused_by_name(component: str, config: Any) -> None:
    """A negative count and an unknown name, in every field that has one."""
    defaults = default(component, config)
    for field in dataclasses.fields(config):
        value = getattr(defaults, field.name)
        bad: Any = {int: -1, str: "no such thing"}.get(type(value))
        if bad is None and isinstance(value, tuple):
            bad = (-1,) * max(1, len(value))
        if bad is not None:
            with pytest.raises(ValueError, match=r"^[a-z_0-9]+: ") as refused:
                dataclasses.replace(defaults, **{field.name: bad})
            known = {other.name for other in dataclasses.fields(config)}
            assert str(refused.value).split(":")[0] in known
