"""`python -m tools.terms`: a lint by the glossary in CONTRIBUTING.md. Part of `make lint`.

The last column of each row of the glossary's table lists, in backticks, phrases that must not occur
in any source, page or configuration. `name =` forbids a name of a variable, argument, attribute,
function or class. Prints `file:line: phrase, write: term` for each occurrence, and exits with 1 if
there is any.
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
EXEMPT = (GLOSSARY, "tests/test_terms.py")  # which quote the forbidden phrases


def glossary(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Forbidden phrases and forbidden names, each with the term to use instead."""
    phrases: dict[str, str] = {}
    names: dict[str, str] = {}
    for term, *_, forbidden in re.findall(r"^\| (.+?) \| (.+?) \| (.*`.*) \|$", text, re.MULTILINE):
        for phrase in re.findall(r"`([^`]+)`", forbidden):
            (names if phrase.endswith(" =") else phrases)[phrase.removesuffix(" =")] = term
    return phrases, names


def offences(path: Path, phrases: dict[str, str], names: dict[str, str]) -> Iterator[str]:
    """`line: phrase, write: term` for each forbidden phrase or name in a file."""
    text = path.read_text("utf-8")
    for phrase, term in phrases.items():
        # A phrase may be broken over two lines, of a comment or a string too.
        pattern = r"\b" + re.escape(phrase).replace(r"\ ", r"""[\s#"'>*]+""") + r"\b"
        for match in re.finditer(pattern, text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{line}: {phrase!r}, write: {term}"
    for node in ast.walk(ast.parse(text)) if path.suffix == ".py" else ():
        name = _defined(node).strip("_")
        if name in names:
            yield f"{getattr(node, 'lineno', 0)}: name {name!r}, write: {names[name]}"


def _defined(node: ast.AST) -> str:
    """The name that a node defines; "" if none."""
    if isinstance(node, ast.arg):
        return node.arg
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return node.attr
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    return ""


def files(root: Path) -> Iterator[Path]:
    """Every file that the lint reads."""
    for place in PLACES:
        for path in sorted(root.glob(place) if "*" in place else (root / place).rglob("*")):
            name = str(path.relative_to(root))
            if path.suffix in KINDS and name not in EXEMPT and path.is_file():
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
