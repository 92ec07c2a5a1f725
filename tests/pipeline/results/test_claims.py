"""Claims of papers: every line of a paper is included, and names its measurements."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.errors import FoveaError
from pipeline.commands.recipe import recipes
from pipeline.config.tables import Params
from pipeline.config.yaml_file import read_yaml
from pipeline.results import claims
from pipeline.results.claims import CLAIMS, Claims, read_claims, read_papers

PAPER = CLAIMS / "spirl.yaml"
PAPERS = read_papers()
SMALL = """
name: A
source: paper
tables:
  - name: T
    recipe: small
    protocol: probe
    trials: 0
    cost: hours
    tasks: {both: [reach, door], Reach: reach, "Reach, object": reach}
    points: {"Reach, object": object}
    methods:
      MAE: {measured: "{task}-mae-s{seed}"}
      tokens: {measured: "{task}-mae-s{seed}", reading: tokens, tasks: [Reach]}
      other: {paper: {Reach: [0.5, 0.1]}}
    comparisons:
      - [MAE, tokens]
saliency: [{what: S, paper: "", by: [near, far]}]
pairs: [{what: S, score: mae, size: -0.1, by: [near], less: [far]}]
lines:
  - {what: "App. E", paper: "0.1 s", measured: times.json, ours: "{times[0][ms]:,.0f} ms"}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "claims.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    path = tmp_path / "times.json"
    path.write_text(json.dumps({"times": [{"ms": 1234.5}]}))
    return path


def test_methods_and_tasks_make_cells(tmp_path: Path, small: Params, times: Path) -> None:
    read = read_claims(written(tmp_path, SMALL))
    cells = {(cell.method, cell.task): cell for cell in read.tables[0].cells}
    assert list(cells) == [("MAE", "both"), ("MAE", "Reach"), ("MAE", "Reach, object"),
                           ("tokens", "Reach"), ("other", "Reach")]  # fmt: skip
    reach, door = cells["MAE", "both"].names
    assert reach == ("reach-mae-s0", "reach-mae-s1", "reach-mae-s2", *[""] * 7)
    assert door == ("door-mae-s0", "", "door-mae-s2", *[""] * 7)
    assert cells["MAE", "Reach, object"].points == ("object",)
    assert cells["tokens", "Reach"].reading == "tokens"
    assert cells["other", "Reach"].names == () and cells["other", "Reach"].deviation == 0.1
    assert read.tables[0].pairs == ((cells["MAE", "Reach"], cells["tokens", "Reach"]),)
    assert read.sources[0].by == ("predictors/near", "predictors/far")
    assert read.lines[0].ours == "1,234 ms (`times.json`)"


EXAMINED = """
name: A
source: paper
tables:
  - name: T
    recipe: small
    protocol: recall
    trials: null
    cost: minutes
    tasks: {Reach: mae}
    methods:
      MAE: {measured: "{task}-s{seed}", paper: {Reach: [0.6]}}
      random: {measured: "{task}-s{seed}", reading: random}
    comparisons:
      - [MAE, random]
lines: []
"""


def test_exams_are_known_by_source_truth_and_keypoints(tmp_path: Path, small: Params) -> None:
    (table,) = read_claims(written(tmp_path, EXAMINED)).tables
    mae, random = table.cells
    assert mae.names[0][:2] == (
        "encoders/reach-mae-s0 annotations/objects 7",
        "encoders/reach-mae-s1 annotations/objects 7",
    )
    assert (mae.reading, random.reading, random.names) == ("source", "random", mae.names)
    assert not table.own and table.label(mae.names[0][0]) == "encoders/reach-mae-s0"
    with pytest.raises(FoveaError, match="no exams for MAE"):
        read_claims(written(tmp_path, EXAMINED.replace("{Reach: mae}", "{Reach: mea}")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("near, far", "near, lost", "no recipe has predictors lost"),
        ("{times[0][ms]:,.0f}", "{times[1][ms]}", r"times\.json: does not fill .*times\[1\]"),
        ("measured: times.json", "measured: none.json", r"none\.json: does not fill"),
        (', ours: "{times[0][ms]:,.0f} ms"', "", "must have either `ours` or `cost`"),
        ("by: [near], less", "by: [], less", "both sides must have as many"),
        ("[MAE, tokens]", "[MAE, tokens, [both]]", "no tasks to compare MAE with tokens"),
        ("[MAE, tokens]", "[MAE, token]", "no tasks to compare MAE with token"),
        ('{task}-mae-s{seed}"}', '{task}-mea-s{seed}"}', "no encoders for MAE"),
    ],
)
def test_claims_without_a_recipe_are_refused(
    tmp_path: Path, small: Params, times: Path, old: str, new: str, message: str
) -> None:
    assert old in SMALL
    with pytest.raises(FoveaError, match=rf"claims\.yaml: .*{message}"):
        read_claims(written(tmp_path, SMALL.replace(old, new, 1)))


@pytest.mark.parametrize("paper", PAPERS, ids=[one.name for one in PAPERS])
def test_the_paper_s_better_method_comes_first(paper: Claims) -> None:
    readings = {"pooled", "pixels", "tokens", "global token", "image alone"} | {
        "source", "motion", "shuffled", "uniform", "random", "centre", "uniform_attention",
    }  # fmt: skip
    for table in paper.tables:
        for better, other in table.pairs:
            assert better.task == other.task
            assert better.mean is None or other.mean is None or better.mean > other.mean
        assert table.cost and (not table.own or all(cell.mean is None for cell in table.cells))
        assert {cell.reading.removesuffix(", all frames") for cell in table.cells} <= readings


def test_every_policy_of_the_papers_recipes_has_a_claim() -> None:
    cells = [cell for table in read_claims(PAPER).tables for cell in table.cells]
    claimed = {name for cell in cells for part in cell.names for name in part}
    for name in ("frostbite", "spirl", "spirl-400k", "spirl-ablations"):
        assert set(read_yaml(recipes()[name])["policies"]) <= claimed


def lines_of(paper: Claims) -> str:
    whats = [one.what for one in paper.lines] + [one.what for one in paper.sources]
    return "\n".join([*(one.name for one in paper.tables), *whats])


def test_every_table_and_figure_has_its_line() -> None:
    text = lines_of(read_claims(PAPER))
    tables = re.findall(r"Tables? (\d+)(?: and (\d+))?", text)
    assert {n for pair in tables for n in pair if n} == {str(n) for n in range(1, 16)}
    assert set(re.findall(r"Fig\. (\d)", text)) == {str(n) for n in range(1, 9)}


def test_every_table_and_figure_of_visarl_has_its_line() -> None:
    text = lines_of(read_claims(CLAIMS / "visarl.yaml"))
    tables = re.findall(r"Tables? (\w+)(?:, (\w+) and (\w+))?", text)
    numbers = {n for row in tables for n in row if n}
    assert numbers == {"I", "II", "III", "IV", "V", "VI"}
    assert set(re.findall(r"Fig\. (\d)", text)) == {str(n) for n in range(1, 8)}


def test_the_errors_in_visarl_are_as_in_our_notes() -> None:
    """The printed numbers against each other: averages, gains, and statements about every task."""
    cells = read_claims(CLAIMS / "visarl.yaml").tables[0].cells
    tasks = ("reach", "drawer", "faucet", "door")
    scores = {cell.names[0][0]: cell for cell in cells}

    def row(arm: str) -> NDArray[np.float64]:
        return np.array([scores[f"{task}-{arm}"].mean for task in tasks])

    printed = {"cnn-rgb": 0.45, "cnn-saliency": 0.05, "cnn-rgbxs": 0.35, "cnn-rgbs": 0.58,
               "multimae-rgb": 0.47, "visarl-po": 0.57, "visarl": 0.65}  # fmt: skip
    wrong = {arm for arm, mean in printed.items() if abs(row(arm).mean() - mean) > 0.00501}
    assert wrong == {"visarl"} and row("visarl").mean() == pytest.approx(0.7025)
    spread = [scores[f"{task}-cnn-rgbs"].deviation for task in tasks]
    assert np.mean(np.array(spread)) == pytest.approx(0.055)  # printed: 0.37
    assert (100 * (row("cnn-rgbs") - row("cnn-rgb"))).round().tolist() == [12, 30, 3, 6]
    assert (100 * (row("visarl") - row("multimae-rgb"))).round().tolist() == [13, 11, 42, 29]
    assert row("visarl").mean() - row("multimae-rgb").mean() == pytest.approx(0.2375)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"{task}-der-p"', '"{task}-derp"', "no policies for DE-Rainbow-P"),
        ("[SPIRL, DE-Rainbow-P]", "[SPIRL]", "malformed"),
        ("Frostbite: [669.5, 731.7]", "Frostbite: [many, 731.7]", "malformed"),
        ("Frostbite: [669.5, 731.7]", "Pong: [669.5, 731.7]", "malformed"),
        ("protocol: mean ", "protocol: best ", "protocol 'best'"),
        ("recipe: spirl\n", "recipe: sprl\n", "malformed.*sprl"),
    ],
)
def test_a_wrong_key_in_the_claims_is_named(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "claims.yaml"
    text = PAPER.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FoveaError, match=rf"claims\.yaml.*{message}"):
        read_claims(path)
