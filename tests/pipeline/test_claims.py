"""What papers claim: every line of theirs is there, and names what measures it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.errors import FoveaError
from pipeline import params
from pipeline.commands.recipe import recipes
from pipeline.results.claims import JOINT, LEDGER, Claims, read_claims, read_papers
from tests.pipeline.kept_seeds import PAPER

PAPERS = read_papers()
of_each_paper = pytest.mark.parametrize("claims", PAPERS, ids=[one.name for one in PAPERS])


@of_each_paper
def test_every_claim_names_an_entry_of_its_recipe(claims: Claims) -> None:
    for table in claims.tables:
        tables = params.load(recipes()[table.recipe]).tables
        if table.protocol == "probe":
            single = [part for row in table.scores for part in row.split(JOINT)]
            rows = {row.split(",")[0] for row in single}
            known = {re.sub(r"-s\d$", "", name) for name in tables["encoders"]}
            point = re.compile(r", (tip|object|goal)$")
            readings = {point.sub("", row).partition(", ")[2] for row in single}
            # As pipeline/commands/probe.py calls them.
            assert readings <= {
                "", "image alone", "global token", "tokens", "all frames", "image alone, all frames"
            }  # fmt: skip
        else:
            rows, known = set(table.scores), set(tables["policies"])
        assert rows <= known
        games = {
            policy.split("-")[0]: score.game
            for policy, score in table.scores.items()
            if JOINT not in policy
        }
        assert all(name == game.split()[0].lower() for name, game in games.items())
        assert table.why and table.brief
        assert not table.own or all(score.mean is None for score in table.scores.values())
    assert all(bool(line.ours) != bool(line.why) for line in claims.lines)


def test_every_policy_of_the_papers_recipes_has_a_claim() -> None:
    claimed = {policy for table in read_claims(PAPER).tables for policy in table.scores}
    for name in ("frostbite", "spirl", "spirl-400k", "spirl-ablations"):
        assert set(params.read_yaml(recipes()[name])["policies"]) <= claimed


def test_every_table_and_figure_has_its_line() -> None:
    claims = read_claims(PAPER)
    said = "\n".join([*(t.name for t in claims.tables), *(line.what for line in claims.lines)])
    tables = re.findall(r"Tables? (\d+)(?: and (\d+))?", said)
    figures = re.findall(r"Fig\. (\d)", said)
    assert {n for pair in tables for n in pair if n} == {str(n) for n in range(1, 16)}
    assert set(figures) == {str(n) for n in range(1, 9)}


def test_every_table_and_figure_of_visarl_has_its_line() -> None:
    claims = read_claims(LEDGER / "visarl.yaml")
    said = "\n".join([*(t.name for t in claims.tables), *(line.what for line in claims.lines)])
    assert set(re.findall(r"Table (\w+)", said)) == {"I", "II", "III", "IV", "V", "VI"}
    assert set(re.findall(r"Fig\. (\d)", said)) == {str(n) for n in range(1, 8)}


def test_the_slips_of_visarl_are_as_its_notes_say() -> None:
    """The printed numbers against each other: averages, gains, and what is true of every task."""
    table = read_claims(LEDGER / "visarl.yaml").tables[0]
    tasks = ("reach", "drawer", "faucet", "door")

    def row(arm: str) -> NDArray[np.float64]:
        return np.array([table.scores[f"{task}-{arm}"].mean for task in tasks])

    printed = {"cnn-rgb": 0.45, "cnn-saliency": 0.05, "cnn-rgbxs": 0.35, "cnn-rgbs": 0.58,
               "multimae-rgb": 0.47, "visarl-po": 0.57, "visarl": 0.65}  # fmt: skip
    wrong = {arm for arm, mean in printed.items() if abs(row(arm).mean() - mean) > 0.00501}
    assert wrong == {"visarl"} and row("visarl").mean() == pytest.approx(0.7025)
    spread = [table.scores[f"{task}-cnn-rgbs"].deviation for task in tasks]
    assert np.mean(np.array(spread)) == pytest.approx(0.055)  # printed: 0.37
    assert (100 * (row("cnn-rgbs") - row("cnn-rgb"))).round().tolist() == [12, 30, 3, 6]
    assert (100 * (row("visarl") - row("multimae-rgb"))).round().tolist() == [13, 11, 42, 29]
    assert row("visarl").mean() - row("multimae-rgb").mean() == pytest.approx(0.2375)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("frostbite-der-p:", "frostbite-derp:", "has no policies frostbite-derp"),
        ("- [frostbite-spirl, frostbite-der]", "- [frostbite-der, frostbite-spirl]", "above"),
        ("- [frostbite-spirl, frostbite-der]", "- [frostbite-spirl, mspacman-der]", "same game"),
        ("- [frostbite-spirl, frostbite-der]", "- [frostbite-spirl]", "malformed"),
        ("[SPIRL, Frostbite, 669.5, 731.7]", "[SPIRL, Frostbite, many, 731.7]", "malformed"),
        ("[SPIRL, Frostbite, 669.5, 731.7]", "[SPIRL, Frostbite, 669.5]", "malformed"),
        ("protocol: mean ", "protocol: best ", "protocol 'best'"),
        ("recipe: spirl\n", "recipe: sprl\n", "malformed.*sprl"),
    ],
)
def test_a_slip_in_the_claims_is_found(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "claims.yaml"
    text = PAPER.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FoveaError, match=rf"claims\.yaml.*{told}"):
        read_claims(path)
