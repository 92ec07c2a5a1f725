"""Lines of the ledger that take their numbers from a committed file, and the picture of one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from datasets.errors import FoveaError
from pipeline.ledger import quoted
from pipeline.ledger.claims import LEDGER, read_claims
from pipeline.ledger.curve import REACH, pictures
from pipeline.ledger.judged import Measured
from pipeline.ledger.quoted import ROOT
from pipeline.ledger.render import render

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
    for path, drawn in pictures().items():
        assert (ROOT / path).read_text("utf-8") == drawn
        assert path.as_posix() in (ROOT / "RESULTS.md").read_text("utf-8")


def test_the_curve_has_a_ring_a_test_and_a_dot_a_point_of_training() -> None:
    (drawn,) = pictures().values()
    root = ElementTree.fromstring(drawn)
    held = json.loads((ROOT / REACH).read_text())
    rings = [e for e in root.iter() if e.tag.endswith("}circle")]
    assert len(rings) == len(held["evaluations"])
    heights = [float(ring.attrib["cy"]) for ring in rings]
    successes = [point["success"] for point in held["evaluations"]]
    assert sorted(heights, reverse=True) == [
        h for _, h in sorted(zip(successes, heights, strict=True))
    ]
    (dots,) = [e for e in root.iter() if e.attrib.get("class") == "games"]
    assert dots.attrib["d"].count("M") == len(held["training"]["points"])
