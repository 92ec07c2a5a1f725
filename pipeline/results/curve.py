"""Pictures beside RESULTS.md, drawn from committed scores: path -> SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.results.data import Floats
from pipeline.results.measured import Seed
from pipeline.results.plots import standalone, success_curve

PICTURES = {"docs/reach-state.svg": ("reach-state", "SAC on the state of Reach")}  # policy, name


def pictures(measured: Mapping[str, Sequence[Seed]]) -> dict[Path, str]:
    """Success over steps of PICTURES, as far as they are measured and no seed failed."""
    found = {}
    for path, (policy, name) in PICTURES.items():
        seeds = measured.get(policy, [])
        if seeds and all(seed.failed is None for seed in seeds):
            found[Path(path)] = standalone(success_curve(name, [success(seed) for seed in seeds]))
    return found


def success(seed: Seed) -> Floats:
    """Share of games that succeed after each checkpoint's steps, (n, 2)."""
    assert seed.successes is not None
    shares = [games.mean() for games in seed.successes]
    return np.array(list(zip(seed.steps, shares, strict=True)), np.float64)
