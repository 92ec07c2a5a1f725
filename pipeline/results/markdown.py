"""Tables of Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells of plain text."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    """Text that can't end its cell, nor its line, nor be taken for HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
