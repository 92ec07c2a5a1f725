"""Pictures beside RESULTS.md, drawn from committed scores: path -> SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.ledger.measured import Seed
from pipeline.reporting.data import Floats
from pipeline.reporting.plots import standalone, success_curves

# path: what it shows, and the name of each policy in it
PICTURES = {
    "docs/reach-state.svg": ("SAC on Reach", {"reach-state": "on the state"}),
    "docs/reach-small.svg": (
        "SAC on Reach",
        {"reach-small-visarl": "ViSaRL", "reach-small-rgb": "MultiMAE, RGB"},
    ),
}


def pictures(measured: Mapping[str, Sequence[Seed]]) -> dict[Path, str]:
    """Success over steps, of each picture whose policies are all measured, no seed failed."""
    found = {}
    for path, (what, arms) in PICTURES.items():
        kept = [measured.get(policy, []) for policy in arms]
        if all(kept) and all(seed.failed is None for seeds in kept for seed in seeds):
            seeds = {arm: [success(s) for s in measured[policy]] for policy, arm in arms.items()}
            found[Path(path)] = standalone(success_curves(what, seeds))
    return found


def success(seed: Seed) -> Floats:
    """Share of games that succeed after each checkpoint's steps, (n, 2)."""
    assert seed.successes is not None
    shares = [games.mean() for games in seed.successes]
    return np.array(list(zip(seed.steps, shares, strict=True)), np.float64)
