"""Lines of the ledger that take their numbers from a committed file, and the picture of one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from datasets.errors import FoveaError
from pipeline.results import quoted
from pipeline.results.claims import LEDGER, read_claims
from pipeline.results.curve import pictures
from pipeline.results.judged import Measured
from pipeline.results.measured import Seed, read_measured
from pipeline.results.quoted import ROOT
from pipeline.results.render import render

PAPER = """
paper: "A: paper"
tables: []
lines:
  - {what: "App. E", paper: "0.1 s", measured: times.json, ours: "WORDS"}
"""
HELD = {"machine": {"cores": 2}, "times": [{"ms": 1234.5}]}


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(quoted, "ROOT", tmp_path)
    path = tmp_path / "times.json"
    path.write_text(json.dumps(HELD))
    return path


def paper(folder: Path, words: str) -> Path:
    path = folder / "paper.yaml"
    path.write_text(PAPER.replace("WORDS", words))
    return path


def test_a_line_has_the_numbers_of_its_file_and_names_it(held: Path) -> None:
    path = paper(held.parent, "{times[0][ms]:,.0f} ms on {machine[cores]} cores")
    page = render([read_claims(path)], Measured({}, {}, {}))
    assert "| App. E | 0.1 s | 1,234 ms on 2 cores ([times.json](times.json)) |" in page
    held.write_text(held.read_text().replace("1234.5", "99.0"))
    assert "99 ms on" in render([read_claims(path)], Measured({}, {}, {}))


@pytest.mark.parametrize("words", ["{seconds}", "{times[0][s]}", "{times[1][ms]}", "{machine:.1f}"])
def test_a_number_that_the_file_has_not_is_named(held: Path, words: str) -> None:
    asked = re.escape(words)
    with pytest.raises(FoveaError, match=rf"paper\.yaml: App\. E: times\.json: .*{asked}"):
        read_claims(paper(held.parent, words))


def test_a_file_that_is_not_there_or_no_json_is_named(held: Path) -> None:
    path = paper(held.parent, "{times}")
    held.write_text("{")
    with pytest.raises(FoveaError, match=r"App\. E: .*times\.json: malformed"):
        read_claims(path)
    held.unlink()
    with pytest.raises(FoveaError, match=r"App\. E: times\.json: not there"):
        read_claims(path)


def test_a_file_without_words_for_it_is_refused(held: Path) -> None:
    path = held.parent / "paper.yaml"
    path.write_text(PAPER.replace(', ours: "WORDS"', ""))
    with pytest.raises(FoveaError, match=r"paper\.yaml: malformed.*ours"):
        read_claims(path)


def test_every_committed_figure_stands_in_a_line() -> None:
    ledgers = "\n".join(path.read_text() for path in LEDGER.glob("*.yaml"))
    for path in (ROOT / "bench/measured").glob("*.json"):
        assert f"measured: bench/measured/{path.name}\n" in ledgers


def test_pictures_are_drawn_from_what_is_committed() -> None:
    drawings = pictures(read_measured())
    assert drawings
    for path, drawn in drawings.items():
        assert (ROOT / path).read_text("utf-8") == drawn
        assert path.as_posix() in (ROOT / "RESULTS.md").read_text("utf-8")


def seed_of(policy: str, *rates: float, failed: str | None = None) -> Seed:
    """A seed of 10 games after every 100 steps, of which so many succeeded."""
    seed = next(iter(read_measured().values()))[0]
    steps = tuple(100 * (i + 1) for i in range(len(rates)))
    games = tuple((np.arange(10) < 10 * rate).astype(np.float64) for rate in rates)
    return replace(seed, policy=policy, steps=steps, successes=games, failed=failed)


def test_a_curve_has_a_line_a_seed_and_rings_at_the_means() -> None:
    seeds = [seed_of("reach-state", 0.2, 0.8), seed_of("reach-state", 0.4, 1.0)]
    ((_, drawn),) = pictures({"reach-state": seeds}).items()
    root = ElementTree.fromstring(drawn)
    told = "Success of SAC on the state of Reach: 0.90 after 200 steps"
    assert root.attrib["aria-label"] == told
    lines = [e for e in root.iter() if e.attrib.get("class") == "seed"]
    assert len(lines) == len(seeds)
    rings = [e for e in root.iter() if e.tag.endswith("}circle")]
    heights = [float(ring.attrib["cy"]) for ring in rings]
    ends = [float(line.attrib["points"].split(",")[-1]) for line in lines]  # at 0.8 and 1.0
    assert heights == pytest.approx([ends[0] + 2.5 * (ends[0] - ends[1]), sum(ends) / 2], abs=0.2)


def test_no_curve_where_a_seed_failed_or_none_is_there() -> None:
    ended = seed_of("reach-state", 0.5, failed="seed 0: the loss is not finite")
    assert pictures({"reach-state": [seed_of("reach-state", 0.5), ended]}) == {}
    assert pictures({}) == {}
