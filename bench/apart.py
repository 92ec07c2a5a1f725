"""Targets that `python -m bench` does not measure itself.

They take too long, or need a clone of foreign code, whole runs or a GPU. The figures of those
that were measured are in `bench/measured/` and the ledger.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bench import exact, half
from pipeline.results import measured

KEPT = Path("bench/measured")
# Trained with the seed after it, each on a core, in one go.
SOLVED = "reach-state"  # the policy
MINUTES = 65  # they may take
TWO_SEEDS = measured.MEASURED / measured.file_name("frostbite-spirl", 0)
PEERS = [  # what, whose code, the ratio's key, the least it should be
    ("error map, empty cache, against SPIRL's release", "SPIRL release", "map_ratio", 2.0),
    ("MAE step against SPIRL's release", "SPIRL release", "step_ratio", 2.0),
    ("update of the CNN against Kaixhin/Rainbow", "Kaixhin", "ratio", None),
    ("the same against CleanRL, whose CNN is larger", "CleanRL", "ratio", None),
    ("SAC against Stable-Baselines3, the same encoder", "Stable-Baselines3", "peer_ratio", 10.0),
    ("bytes of its replay a transition, by default", "Stable-Baselines3", "bytes_ratio", 40.0),
]
NOWHERE = [
    ("`make repro` after the installation, minutes", "12", "the README has it"),
    ("MAE on an H100, images/s", "60,000", "not run, needs one"),
    ("MultiMAE on an H100, samples/s", "35,000", "not run, needs one"),
    ("Rainbow on an H100, updates/s", "2,500", "not run, needs one"),
    ("the same, 16 seeds as one", "20,000", "not run, needs one"),
    ("a 100K run on an H100, minutes", "5", "not run, needs one"),
]

Line = tuple[str, str, str]  # what, its target, where it was measured and whether that is met


def lines() -> list[Line]:
    """All of them."""
    return [error_maps(), bfloat16(), two_seeds(), solved(), *peers(), *NOWHERE]


def error_maps() -> Line:
    """Whether the maps equal the definition's, by `bench.exact`."""
    result = _kept("error-maps")
    games = result["games"].values()
    largest = max(game["largest_difference"] for game in games)
    others = sum(game["frames_with_another_selection"] for game in games)
    text = f"{largest:.1e}, {others} frames with another selection, {result['commit']}"
    met = _met(not exact.beyond(result["games"]))
    what = f"error maps of {sum(game['frames'] for game in games):,} frames, largest difference"
    return what, f"{exact.TOLERANCE:g}", text + met


def bfloat16() -> Line:
    """A whole pretraining in bfloat16 beside float32, by `bench.half`."""
    result = _kept("half")["whole"]
    figures = result["figures"]
    loss = abs(figures["bfloat16"]["loss"] / figures["float32"]["loss"] - 1)
    alike = figures["bfloat16"]["overlap_with_float32"]
    text = f"{loss:.2%}, {alike:.1%}, {result['commit']}{_met(not half.strays(figures))}"
    what = f"bfloat16, {figures['epochs']} epochs: loss off by, patches selected alike"
    return what, f"{half.LOSS:.1%}, {half.WHOLE:.0%}", text


def two_seeds() -> Line:
    """Two whole seeds side by side, in the run that the ledger keeps."""
    run = json.loads(TWO_SEEDS.read_text("utf-8"))["run"]
    minutes = run["wall_seconds"] / 60
    text = f"{minutes:.0f} on {run['machine']['processor']}, {run['commit']}"
    what = "two 100K seeds of frostbite-spirl, minutes"
    return what, f"{MINUTES}", text + _met(minutes <= MINUTES)


def solved() -> Line:
    """The success rate of SAC on the state of a task, in the ledger's seeds."""
    seeds = measured.read_measured()[SOLVED]
    rate = np.mean([seed.games("success").mean() for seed in seeds])
    minutes = seeds[0].run.hours * 60
    what = f"SAC on the state of Reach, success after {seeds[0].entry['steps']:,} steps"
    text = f"{rate:.2f} by {len(seeds)} seeds, {minutes:.0f} minutes, {seeds[0].run.commit}"
    return what, "0.9", text + _met(rate >= 0.9)


def peers() -> list[Line]:
    """Beside code that others publish, by `bench.released` and `bench.peers`."""
    result, text = _kept("peers"), []
    for what, whose, key, least in PEERS:
        ratio, commit = result[whose]["figures"][key], result[whose]["commit"]
        met = _met(ratio >= least) if least else ""
        text.append((what, f"{least:g}x" if least else "", f"{ratio:.2f}x at {commit}{met}"))
    return text


def _kept(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((KEPT / f"{name}.json").read_text("utf-8"))
    return result


def _met(met: bool) -> str:
    return "; yes" if met else "; no"
