"""The lint of terms reports the phrases and names that the glossary forbids, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.terms import GLOSSARY, ROOT, glossary, offences

PHRASES, NAMES = glossary((ROOT / GLOSSARY).read_text("utf-8"))


def test_the_glossary_is_read() -> None:
    assert PHRASES["nothing anywhere"] == "all-zero map"
    assert "found" in NAMES and "found" not in PHRASES


@pytest.mark.parametrize(
    ("text", "offence"),
    [
        ('"""A map of nothing anywhere."""', "1: 'nothing anywhere', write: all-zero map"),
        ("x = 1  # nothing\n# anywhere", "1: 'nothing anywhere', write: all-zero map"),
        ("\nfound, y = 1, 2", "2: name 'found', write: "),
        ("def f(told): ...", "1: name 'told', write: "),
        ("def _kept(): ...", "1: name 'kept', write: "),
        ("class A:\n    def f(self) -> None:\n        self.seen = 1", "3: name 'seen', write: "),
        ("x: int = 1\nx += find(kept=1)  # the files that were found", None),
    ],
)
def test_an_offence_is_reported_with_its_line(
    tmp_path: Path, text: str, offence: str | None
) -> None:
    path = tmp_path / "a.py"
    path.write_text(text)
    first = next(offences(path, PHRASES, NAMES), None)
    assert first == offence if offence is None else first and first.startswith(offence)
