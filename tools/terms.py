"""`python -m tools.terms`: CONTRIBUTING.md's glossary, held. Part of `make lint`.

The last column of each row of the glossary's table lists, in backticks, what must not be written in
any source, page or configuration; `name =` forbids a name for a variable. Prints `file:line: what,
write what` for each and exits with 1 if there is any.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
GLOSSARY = "CONTRIBUTING.md"
KINDS = (".py", ".md", ".yaml", ".html")
PLACES = ("datasets", "pretrain", "rl", "pipeline", "bench", "tools", "tests", "docs", "*.*")
EXEMPT = (GLOSSARY, "tests/test_terms.py")  # which say what must not be written


def glossary(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """What must not be written -> the term instead: phrases, and names of variables."""
    phrases: dict[str, str] = {}
    names: dict[str, str] = {}
    for term, *_, forbidden in re.findall(r"^\| (.+?) \| (.+?) \| (.*`.*) \|$", text, re.MULTILINE):
        for phrase in re.findall(r"`([^`]+)`", forbidden):
            (names if phrase.endswith(" =") else phrases)[phrase.removesuffix(" =")] = term
    return phrases, names


def offences(path: Path, phrases: dict[str, str], names: dict[str, str]) -> Iterator[str]:
    """`line: what, write what` for each offence of a file."""
    text = path.read_text("utf-8")
    for phrase, term in phrases.items():
        # A phrase may be broken over two lines, of a comment or a string too.
        pattern = r"\b" + re.escape(phrase).replace(r"\ ", r"""[\s#"'>*]+""") + r"\b"
        for match in re.finditer(pattern, text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{line}: {phrase!r}, write: {term}"
    for node in ast.walk(ast.parse(text)) if path.suffix == ".py" else ():
        name = getattr(node, "arg", None) if isinstance(node, ast.arg) else None
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        if name in names:
            assert isinstance(node, ast.arg | ast.Name)
            yield f"{node.lineno}: variable {name!r}, write: {names[name]}"


def files(root: Path) -> Iterator[Path]:
    """Every file that is held to the glossary."""
    for place in PLACES:
        for path in sorted(root.glob(place) if "*" in place else (root / place).rglob("*")):
            name = str(path.relative_to(root))
            if path.suffix in KINDS and name not in EXEMPT:
                yield path


def main() -> int:
    """Check the whole tree."""
    phrases, names = glossary((ROOT / GLOSSARY).read_text("utf-8"))
    count = 0
    for path in files(ROOT):
        for offence in offences(path, phrases, names):
            print(f"{path.relative_to(ROOT)}:{offence}")
            count += 1
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
