"""The README's table of results has the measured numbers; its prose is readable."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pipeline.results.claims import Cell
from pipeline.results.comparisons import Records, ours, samples
from pipeline.results.record import read_records
from pipeline.results.verdict import judge

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
TASKS = ("reach", "drawer", "faucet", "door")
LONG = ("reach", "drawer-open", "faucet-open", "door-open")


@cache
def records() -> Records:
    return read_records()


def policy(name: str) -> Cell:
    return Cell("", "", ((name,),))


def mean(cell: Cell, protocol: str = "success") -> float:
    measured = ours(cell, protocol, records())
    assert measured is not None
    return measured[0].mean


def r2(
    arm: str, *tasks: str, reading: str = "pooled", points: tuple[str, ...] = Cell.points
) -> str:
    """R² of the probes of an arm, over these tasks."""
    names = tuple(tuple(f"{task}-small-{arm}-s{seed}" for seed in range(3)) for task in tasks)
    return f"{mean(Cell('', '', names, reading=reading, points=points), 'probe'):.2f}"


def r2_of_pixels() -> str:
    """R² of probes of the pixels themselves: nothing is trained, so there are no seeds."""
    cells = [Cell("", "", ((f"{task}-small-pixels",),), reading="pixels") for task in TASKS]
    return f"{np.mean([mean(cell, 'probe') for cell in cells]):.2f}"


def score(kind: str, name: str = "f_max") -> float:
    """The mean of a kind of predictors over the four tasks."""
    scores = [records()[f"predictors/{task}-{kind}"] for task in LONG]
    return float(np.mean([one.scores["judged"][name] for (one,) in scores]))


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
        f"| {score('30', 'second_f_max'):.2f}, a second simulated annotator |",
    )


def test_probes() -> None:
    arms = ("untrained", "rgb", "picanet", "centre", "random")
    of = {arm: r2(arm, *TASKS) for arm in arms}
    holds(
        row("Gripper, object and goal"),
        f"| {of['picanet']} with PiCANet's maps |",
        f"| {of['rgb']} frames alone; {of['centre']} centre prior; {of['random']} random maps; "
        f"{of['untrained']} untrained |",
        f"; raw pixels give {r2_of_pixels()} |",
    )
    puck = {
        (arm, way): r2(arm, "reach", reading=f"{way}, all frames", points=("object",))
        for arm, way in (("picanet", "pooled"), ("picanet", "image alone"), ("rgb", "pooled"))
    }
    holds(
        row("Reach's small puck"),
        f"| {puck['picanet', 'pooled']}; {puck['picanet', 'image alone']} if",
        f"| {puck['rgb', 'pooled']} frames alone |",
    )


def test_policies() -> None:
    cells = [policy(f"reach-small-{arm}") for arm in ("visarl", "rgb")]
    sides = [samples(cell, "success", records()) for cell in cells]
    random = np.mean(records()["policies/reach-small-visarl"][0].scores["random"]["successes"])
    holds(
        row("SAC on Reach, 60,000 steps"),
        f"| {mean(cells[0]):.2f} | {mean(cells[1]):.2f} frames alone; {random:.2f} random |",
        f"; {judge(sides[0], sides[1], None, 'success').detectable:.2f} would be detectable",
    )
    state = records()["policies/reach-state"][0].entry["steps"]
    solved = mean(policy("reach-state"))
    holds(row(f"SAC on Reach's state, {state:,} steps"), f"| {solved:.2f} |")
    returns = [mean(policy(f"frostbite-{one}"), "mean") for one in ("spirl", "der")]
    holds(row("SPIRL on Frostbite"), f"| {returns[0]:.0f}, ", f"| {returns[1]:.0f}, DE-Rainbow")


def paragraphs() -> list[str]:
    """The paragraphs of prose, without code, tables, images and addresses of links."""
    text = re.sub(r"(?ms)^```.*?^```$", "", README)
    text = re.sub(r"(?m)^[|!].*$", "", text)
    text = re.sub(r"\]\([^)]*\)", "]", text[: text.index("## Citation")])
    return [piece for piece in re.split(r"\n\n+|\n(?=- |\d+\. |\|)", text) if piece.strip()]


@pytest.mark.parametrize("paragraph", paragraphs(), ids=lambda text: text.strip()[:30])
def test_a_paragraph_is_short_and_has_few_numbers(paragraph: str) -> None:
    prose = re.sub(r"`[^`]*`|^\d+\.", "", paragraph.strip())
    assert len(paragraph) <= 400
    assert len(re.findall(r"\d[\d,.]*", prose)) <= 3
