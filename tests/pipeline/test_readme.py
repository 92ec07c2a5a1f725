"""The README's table of results holds the numbers that were measured; its prose is readable."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pipeline.results.judged import Measured, ours
from pipeline.results.measured import read_measured
from pipeline.results.predicted import read_predicted
from pipeline.results.probed import read_probed, with_pooled
from pipeline.results.verdict import judge

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
TASKS = ("reach", "drawer", "faucet", "door")
LONG = ("reach", "drawer-open", "faucet-open", "door-open")


@cache
def kept() -> Measured:
    return Measured(read_measured(), read_probed(), read_predicted())


def mean(policy: str) -> float:
    return ours(kept().policies[policy], "success").mean


def r2(arm: str, *tasks: str) -> float:
    """Of the probes of an arm, as in `rgb, tokens`, over these tasks."""
    arm, _, way = arm.partition(",")
    row = " + ".join(f"{task}-small-{arm}" + (f",{way}" if way else "") for task in tasks)
    return ours(with_pooled(kept().probes, [row])[row], "probe").mean


def score(kind: str, name: str = "f_max") -> float:
    """The mean of a kind of predictors over the four tasks."""
    scores = [kept().saliency[f"predictors/{task}-{kind}"] for task in LONG]
    return float(np.mean([one.scores[name] for (one,) in scores]))


def row(question: str) -> str:
    """The line of the table of results that answers a question."""
    (line,) = [line for line in README.splitlines() if line.startswith(f"| {question}")]
    return line


def holds(line: str, *phrases: str) -> None:
    assert [phrase for phrase in phrases if phrase not in line] == []


def test_predictors() -> None:
    times = json.loads((ROOT / "bench/measured/saliency-times.json").read_text())
    faster = times["saliency"]["figures"]["label_64_student_ratio"]
    holds(
        row("Saliency learned from simulated clicks"),
        f"| {score('30'):.2f} PiCANet; {score('student'):.2f} its student, {faster:.0f} times",
        f"| {score('30', 'redrawn_f_max'):.2f}, a second simulated annotator |",
    )


def test_probes() -> None:
    arms = ("untrained", "rgb", "picanet", "centre", "random")
    of = {arm: f"{r2(arm, *TASKS):.2f}" for arm in arms}
    holds(
        row("Gripper, object and goal"),
        f"| {of['picanet']} with PiCANet's maps |",
        f"| {of['rgb']} frames alone; {of['centre']} centre prior; {of['random']} random maps; "
        f"{of['untrained']} untrained |",
    )
    puck = {
        arm: f"{r2(f'{arm}, all frames, object', 'reach'):.2f}"
        for arm in ("rgb", "picanet", "picanet, image alone")
    }
    holds(
        row("Reach's small puck"),
        f"| {puck['picanet']}; {puck['picanet, image alone']} if",
        f"| {puck['rgb']} frames alone |",
    )


def test_policies() -> None:
    seeds = [kept().policies[f"reach-small-{arm}"] for arm in ("visarl", "rgb")]
    sides = [[seed.games("success") for seed in side] for side in seeds]
    random = np.mean([one.random_successes for one in seeds[0] if one.random_successes is not None])
    holds(
        row("SAC on Reach, 60,000 steps"),
        f"| {mean('reach-small-visarl'):.2f} | {mean('reach-small-rgb'):.2f} frames alone; "
        f"{random:.2f} random |",
        f"; {judge(sides[0], sides[1], None, 'success').detectable:.2f} would be detectable",
    )
    state = kept().policies["reach-state"][0].entry["steps"]
    holds(row(f"SAC on Reach's state, {state:,} steps"), f"| {mean('reach-state'):.2f} |")
    returns = [ours(kept().policies[f"frostbite-{one}"], "mean").mean for one in ("spirl", "der")]
    holds(row("SPIRL on Frostbite"), f"| {returns[0]:.0f}, ", f"| {returns[1]:.0f}, DE-Rainbow")


def paragraphs() -> list[str]:
    """What is read as a piece: neither code, nor a table, nor a picture, nor what it links to."""
    text = re.sub(r"(?ms)^```.*?^```$", "", README)
    text = re.sub(r"(?m)^[|!].*$", "", text)
    text = re.sub(r"\]\([^)]*\)", "]", text[: text.index("## Citation")])
    return [piece for piece in re.split(r"\n\n+|\n(?=- |\d+\. |\|)", text) if piece.strip()]


@pytest.mark.parametrize("paragraph", paragraphs(), ids=lambda text: text.strip()[:30])
def test_a_paragraph_is_short_and_has_few_numbers(paragraph: str) -> None:
    prose = re.sub(r"`[^`]*`|^\d+\.", "", paragraph.strip())
    assert len(paragraph) <= 400
    assert len(re.findall(r"\d[\d,.]*", prose)) <= 3
