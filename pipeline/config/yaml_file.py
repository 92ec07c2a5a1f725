"""Defensive reading of YAML: bounded in size, depth, aliases and the length of a text."""

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path
from typing import Any

from datasets.errors import FoveaError, brief, quoted
from datasets.files import DEPTH

MAX_YAML, MAX_TEXT = 1 << 22, 1 << 13  # characters of a file, of a key or value
VALUES = 100_000  # of a file, with aliases expanded
BRACKETS = re.compile(r"[\[{\]}]")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a file, by YAML 1.2 as in DVC (`1e-4` is a number).

    It is bounded in depth, in the length of a text, and in values with aliases expanded. Raises
    FoveaError naming the file for anything else.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.exists():
        raise FoveaError(f"{path}: no such file; `make recipe NAME=quick` writes one")
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > MAX_YAML:
            raise ValueError(f"longer than {MAX_YAML} characters")
        deepest = max(accumulate(1 if b in "[{" else -1 for b in BRACKETS.findall(text)), default=0)
        if deepest > 10 * DEPTH:  # the parser would take seconds to fail
            raise RecursionError
        content = YAML(typ="safe", pure=True).load(text)
        _check_bounds(content)
    except RecursionError as error:
        raise FoveaError(f"{path}: nested more than {DEPTH} deep") from error
    except (YAMLError, ValueError) as error:
        raise FoveaError(f"{path}: not valid YAML: {brief(error, 300)}") from error
    if not isinstance(content, dict):
        raise FoveaError(f"{path}: has no tables; `make recipe NAME=quick` writes a valid one")
    return content


def _check_bounds(content: object) -> None:
    """Raise ValueError where values, depth or a text exceed the bounds."""
    rest, todo = VALUES, [("", content, 0)]
    while todo:
        key, value, depth = todo.pop()
        rest -= 1
        if rest < 0:
            raise ValueError(f"{key}: more than {VALUES} values, with aliases expanded")
        if depth > DEPTH:
            raise ValueError(f"{key}: nested more than {DEPTH} deep")
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise ValueError(f"{key}: a text of {len(value)} characters, {quoted(value)}")
        if isinstance(value, dict):
            for name, part in value.items():
                if isinstance(name, str) and len(name) > MAX_TEXT:
                    raise ValueError(f"{key}: a key of {len(name)} characters, {quoted(name)}")
                where = f"{key}.{short(name)}" if key else short(name)
                todo.append((where, part, depth + 1))
        elif isinstance(value, (list, tuple)):
            todo += [(key, part, depth + 1) for part in value]


def short(name: object) -> str:
    """A key in a message, cut to 80 characters."""
    text = name if isinstance(name, str) else repr(name)
    return text if len(text) <= 80 else f"{text[:79]}…"
