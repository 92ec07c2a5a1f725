"""The README's words on results hold the numbers that were measured."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np

from pipeline.results.judged import Measured, ours
from pipeline.results.measured import read_measured
from pipeline.results.predicted import read_predicted
from pipeline.results.probed import read_probed, with_pooled
from pipeline.results.verdict import judge

ROOT = Path(__file__).parents[2]
TASKS = ("reach", "drawer", "faucet", "door")
LONG = ("reach", "drawer-open", "faucet-open", "door-open")


@cache
def kept() -> Measured:
    return Measured(read_measured(), read_probed(), read_predicted())


def readme() -> str:
    return " ".join((ROOT / "README.md").read_text("utf-8").split())


def mean(policy: str) -> float:
    return ours(kept().policies[policy], "success").mean


def r2(arm: str, *tasks: str) -> float:
    """Of the probes of an arm, as in `rgb, tokens`, over these tasks."""
    arm, _, way = arm.partition(",")
    row = " + ".join(f"{task}-small-{arm}" + (f",{way}" if way else "") for task in tasks)
    return ours(with_pooled(kept().probes, [row])[row], "probe").mean


def score(kind: str, name: str = "f_max") -> float:
    """The mean of a kind of predictors over the four tasks."""
    found = [kept().saliency[f"predictors/{task}-{kind}"] for task in LONG]
    return float(np.mean([one.scores[name] for (one,) in found]))


def test_predictors() -> None:
    times = json.loads((ROOT / "bench/measured/saliency-times.json").read_text())
    faster = times["saliency"]["figures"]["label_64_student_ratio"]
    for words in (
        f"its four predictors come to an F-measure of {score('30'):.2f} on other episodes",
        f"a second draw of the same clicks to {score('30', 'redrawn_f_max'):.2f}",
        f"a student that labels {faster:.0f} times faster to {score('student'):.2f}",
    ):
        assert words in readme(), words


def test_probes() -> None:
    of = {arm: f"{r2(arm, *TASKS):.2f}" for arm in (
        "untrained", "rgb", "picanet", "error", "motion", "centre", "random"
    )}  # fmt: skip
    assert of["error"] == of["motion"]
    puck = {
        arm: f"{r2(f'{arm}, all frames, object', 'reach'):.2f}"
        for arm in ("rgb", "picanet", "picanet, image alone")
    }
    for words in (
        f"{of['rgb']} after pretraining on frames alone, {of['picanet']} with PiCANet's maps,",
        f"{of['error']} with reconstruction errors or motion,",
        f"{of['centre']} with a bump in the middle, {of['random']} with random maps,",
        f"{of['untrained']} untrained",
        f"R² {puck['picanet']} beside {puck['rgb']} on frames alone",
        f"{puck['picanet, image alone']} where the policy's features see the image alone",
    ):
        assert words in readme(), words


def test_policies() -> None:
    seeds = [kept().policies[f"reach-small-{arm}"] for arm in ("visarl", "rgb")]
    sides = [[seed.games("success") for seed in side] for side in seeds]
    random = np.mean([one.random_successes for one in seeds[0] if one.random_successes is not None])
    state = kept().policies["reach-state"]
    returns = [ours(kept().policies[f"frostbite-{one}"], "mean").mean for one in ("spirl", "der")]
    for words in (
        f"success {mean('reach-small-rgb'):.2f} on features of frames alone, "
        f"{mean('reach-small-visarl'):.2f} with the student's saliency beside, {random:.2f} at",
        f"({judge(sides[0], sides[1], None, 'success').detectable:.2f} would show)",
        f"On the state itself it comes to {mean('reach-state'):.2f} in "
        f"{state[0].entry['steps']:,} steps",
        f"{returns[0]:.0f} against {returns[1]:.0f} on average",
    ):
        assert words in readme(), words
