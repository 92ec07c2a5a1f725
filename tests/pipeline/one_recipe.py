"""A ledger that knows one small recipe, and what is recorded of a run."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline import params
from pipeline.config.tables import Params
from pipeline.results import claims, settings

RUN: dict[str, Any] = {
    "commit": "abc",
    "machine": {"processor": "a processor", "cores": 2, "gpu": None},
    "wall_seconds": 60.0,
    "resumed": 0,
}


def only_recipe(
    text: str, reader: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Params:
    """Make `text` the recipe `small`, the only one for the ledger and for `reader` of it."""
    path = tmp_path / "small.yaml"
    path.write_text(text)
    loaded = params.load(path)
    for module in (settings, reader):
        monkeypatch.setattr(module, "checked_recipes", lambda: {"small": loaded})
    monkeypatch.setattr(claims, "recipes", lambda: {"small": path})
    return loaded
