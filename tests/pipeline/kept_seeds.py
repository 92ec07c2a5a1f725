"""Seeds of SPIRL as they are kept once they were measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline import params
from pipeline.commands.recipe import recipes
from pipeline.results import measured
from pipeline.results.claims import LEDGER

SPIRL = params.load(recipes()["spirl"])
PAPER = LEDGER / "spirl.yaml"


def one(policy: str, seed: int, returns: list[list[float]], **more: object) -> dict[str, Any]:
    """A measured file at the recipe's settings; the last of `returns` at the end of training."""
    entry = SPIRL.entry("policies", policy)
    steps = entry.config.steps
    run = {
        "commit": "abc",
        "machine": {"processor": "a processor", "cores": 2, "gpu": None},
        "wall_seconds": 3600.0,
        "resumed": 0,
    }
    encoder = SPIRL.entry("encoders", entry.keys.encoder)
    return {
        "policy": policy,
        "seed": seed,
        "failed": None,
        "note": "",
        "entry": entry.resolved(frozenset({"games", "epsilon"})),
        "encoder": {
            "digest": "d" * 64,
            "entry": encoder.resolved(),
            "frames": 5000,
            "parameters": 790_784 if encoder.keys.model == "mae" else 0,
            "run": run,
        },
        "run": run,
        "games": 50,
        "epsilon": 0.001,
        "checkpoints": [
            {"step": steps - 10_000 * i, "returns": fifty(games)}
            for i, games in enumerate(reversed(returns))
        ],
        "random": {"returns": fifty([1.0, 2.0])},
    } | more


def fifty(games: list[float]) -> list[float]:
    return (games * 50)[:50]


def keep(folder: Path, *files: dict[str, Any]) -> Path:
    for file in files:
        (folder / measured.file_name(file["policy"], file["seed"])).write_text(json.dumps(file))
    return folder
