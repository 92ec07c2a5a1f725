"""Strict conversion of mappings to frozen dataclasses, which collects all mistakes."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from datasets.errors import quoted


def read_into(
    kinds: Sequence[type],
    mapping: Mapping[str, Any],
    mistakes: list[str],
    *,
    prefix: str = "",
    extra: Collection[str] = (),
) -> list[Any]:
    """Split one flat mapping among dataclasses, each key to the one that has it.

    Unknown, missing and mistyped keys, and every value that a dataclass's own check refuses, are
    appended to `mistakes` as `key: mistake`. Returns one instance per dataclass, or None if it has
    mistakes. `extra` are further known keys, which are read elsewhere.
    """
    hints = {key: hint for kind in kinds for key, hint in _hints(kind).items()}
    for key in mapping:
        if key not in hints:
            mistakes.append(f"{prefix}{key}: unknown key{closest(str(key), [*hints, *extra])}")
    return [_read(kind, mapping, mistakes, prefix) for kind in kinds]


def _read(kind: type, mapping: Mapping[str, Any], mistakes: list[str], prefix: str) -> Any:
    before = len(mistakes)
    values: dict[str, Any] = {}
    hints = _hints(kind)
    for item in dataclasses.fields(kind):
        if item.name in mapping:
            value, wrong = convert(mapping[item.name], hints[item.name])
            values[item.name] = value
            if wrong:
                mistakes.append(f"{prefix}{item.name}: {wrong}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            mistakes.append(f"{prefix}{item.name}: missing; {_name(hints[item.name])}")
    if len(mistakes) > before:
        return None
    try:
        return kind(**values)
    except ValueError as error:  # one mistake a line
        mistakes += [f"{prefix}{mistake}" for mistake in str(error).splitlines()]
        return None


def convert(value: Any, hint: Any) -> tuple[Any, str]:
    """The value in the type of `hint`, and the mistake in it ("" without one).

    An integer is converted to a float. Nothing else is converted: "yes" is not a bool, "3" not an
    int.
    """
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if typing.get_origin(hint) is typing.Union:
        options = typing.get_args(hint)
    for option in options:
        origin = typing.get_origin(option)
        if option is type(None) and value is None:
            return None, ""
        if origin is typing.Literal and value in typing.get_args(option):
            return value, ""
        if origin is tuple and isinstance(value, (list, tuple)):
            inner = typing.get_args(option)
            each = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
            read = [convert(v, h) for v, h in zip(value, each, strict=False)]
            if len(each) == len(value) and not any(wrong for _, wrong in read):
                return tuple(v for v, _ in read), ""
        if option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            if not math.isfinite(value):
                return value, f"{value}, must be a finite number"
            return float(value), ""
        if option in (int, str, bool) and type(value) is option:
            return value, ""
    near = ""
    literals = [
        v for o in options if typing.get_origin(o) is typing.Literal for v in typing.get_args(o)
    ]
    if literals and isinstance(value, str):
        near = closest(value, [str(v) for v in literals])
    return value, f"{quoted(value)} ({type(value).__name__}), must be {_name(hint)}{near}"


def closest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'mae'?` for similar names, else all of them if they are few, else ""."""
    names = [str(other) for other in known]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(map(repr, near)) + "?"
    return f" (there are: {', '.join(sorted(names))})" if 0 < len(names) <= 30 else ""


def flatten(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON-able dict of a mapping from the YAML reader."""
    return {
        str(key): list(value) if isinstance(value, (list, tuple)) else value
        for key, value in mapping.items()
    }


def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)  # without ranges, which the dataclass checks itself
    return {item.name: hints[item.name] for item in dataclasses.fields(kind)}


def _name(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(repr(value) for value in typing.get_args(hint))
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return hint.__name__
    return str(hint).replace("typing.", "").replace("NoneType", "null").replace("None", "null")
