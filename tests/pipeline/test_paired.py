"""Predictors set against others task by task, and the verdict on what a paper says of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pipeline.results.paired import Claim, paired
from pipeline.results.predicted import Predicted

LESS = Claim("mae", -0.01, same=False)
SAME = Claim("mae", 0.01, same=True)


def one(label: str, mae: float) -> Predicted:
    return Predicted(
        label=label, annotations="annotations/x", frames=20, simulated=True,
        scores={"mae": mae}, held_out={}, held_out_maps=2, taught=None, updates=300, digest="d",
        teacher=None, run=None, note="",
    )  # fmt: skip


def told(gaps: list[float], claim: Claim) -> str:
    names = [f"{side}{i}" for side in "ab" for i in range(len(gaps))]
    values = [0.5 + gap for gap in gaps] + [0.5] * len(gaps)
    found = {name: [one(name, value)] for name, value in zip(names, values, strict=True)}
    return paired(found, names[: len(gaps)], names[len(gaps) :], [claim])


@pytest.mark.parametrize(
    ("gaps", "claim", "word"),
    [
        ([-0.02, -0.021, -0.022, -0.019], LESS, "reproduced"),
        ([0.02, 0.021, 0.022, 0.019], LESS, "not reproduced"),
        ([-0.001, 0.001, 0.002, -0.002], LESS, "not reproduced"),  # 0 and not the paper's
        ([-0.05, 0.03, 0.02, -0.03], LESS, "under-powered"),
        ([-0.02, -0.02], LESS, "under-powered"),
        ([0.001, -0.001, 0.002, -0.002], SAME, "reproduced"),
        ([0.02, 0.021, 0.022, 0.019], SAME, "not reproduced"),
        ([0.0, 0.02, 0.01, -0.01], SAME, "under-powered"),
    ],
)
def test_the_interval_decides(gaps: list[float], claim: Claim, word: str) -> None:
    assert told(gaps, claim).startswith(f"**{word}**: MAE ")


@pytest.mark.parametrize("count", [3, 4, 6])
def test_the_interval_is_students_of_the_paired_differences(count: int) -> None:
    gaps = [-0.02, -0.01, -0.04, -0.03, -0.06, -0.015][:count]
    low, high = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    text = told(gaps, LESS)
    assert f"{np.mean(gaps):+.4f} [{low:+.4f}, {high:+.4f}], by task -0.0200," in text
    assert text.endswith(f"({count} tasks, one fit each, 300 and 300 updates)")


def test_pairs_that_are_not_whole_are_left_out() -> None:
    """As those are that were judged on other annotations, or have no such score."""
    found = {"a": [one("a", 0.1)], "b": [one("b", 0.2)], "c": [one("c", 0.3)]}
    assert paired(found, ["a"], ["d"], [LESS]) == ""
    told = paired(found, ["a", "c"], ["b", "d"], [LESS])
    assert (
        told == "**under-powered**: MAE -0.1000 (1 of 2 tasks, one fit each, 300 and 300 updates)"
    )
    found["b"] = [replace(found["b"][0], annotations="annotations/y")]
    assert paired(found, ["a"], ["b"], [LESS]) == ""
    assert paired(found, ["a"], ["c"], [Claim("f_max", 0.1, same=True)]) == ""
