"""Dataclasses with checked fields: a number's type states its range.

    @dataclass(frozen=True)
    class Config(Checked):
        steps: Count = 100_000
        gamma: Fraction = 0.99
        pad: Literal["zero", "learned"] = "zero"

A file's `Config` is read from `params.yaml`, and from the `config.json` of artifacts of any origin.
So its values are checked on construction. A rule about several fields goes into `rules()`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included; `open` excludes the lower bound."""

    low: float = -math.inf
    high: float = math.inf
    open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open else value >= self.low
        return math.isfinite(value) and above and value <= self.high

    def rule(self, value: float) -> str:
        """The rule that `value` breaks, as in `steps: 0, must be at least 1`."""
        if math.isinf(value):
            return "finite"
        if self.low == 0 and self.high == 1 and not self.open:
            return "between 0 and 1"
        if value > self.high:
            return f"at most {self.high:,}"
        return f"{'above' if self.open else 'at least'} {self.low}"


Count = Annotated[int, Range(1, 10**12)]  # of steps, frames, units
Natural = Annotated[int, Range(0, 10**12)]  # such as a seed
Width = Annotated[int, Range(1, 16_384)]  # of a layer: units, channels, dimensions
Depth = Annotated[int, Range(1, 256)]  # a number of layers
Side = Annotated[int, Range(1, 4_096)]  # of an image, in pixels
Fraction = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, open=True)]
NonNegative = Annotated[float, Range(0)]


class Checked:
    """Base of a frozen dataclass whose fields' types state the values that they may have."""

    def __post_init__(self) -> None:
        """Raise ValueError listing every field that is out of its range, one a line.

        Only if there are none, the broken `rules()` are listed.
        """
        mistakes = list(_out_of_range(self))
        mistakes = mistakes or list(self.rules())  # a rule may rely on every single value
        if mistakes:
            raise ValueError("\n".join(mistakes))

    def rules(self) -> Iterator[str]:
        """Mistakes in combinations of fields, as `name: value, must be ...`."""
        return iter(())


def _out_of_range(config: Checked) -> Iterator[str]:
    kind: Any = type(config)
    for name, (allowed, choices) in _limits(kind).items():
        value = getattr(config, name)
        if choices and value not in choices:
            yield f"{name}: {value!r}, must be {' or '.join(map(str, choices))}"
        if allowed is not None:
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and number not in allowed:
                    yield f"{name}: {value}, must be {allowed.rule(number)}"
                    break


@functools.cache
def _limits(cls: Any) -> dict[str, tuple[Range | None, tuple[Any, ...]]]:
    """Field -> its range and its choices, where it has any (inside `| None` and tuples too)."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {field.name for field in dataclasses.fields(cls)}
    limits = {name: _limit(hint) for name, hint in hints.items() if name in fields}
    return {name: limit for name, limit in limits.items() if limit != (None, ())}


def _limit(hint: Any) -> tuple[Range | None, tuple[Any, ...]]:
    if typing.get_origin(hint) is Annotated:
        return next((extra for extra in hint.__metadata__ if isinstance(extra, Range)), None), ()
    if typing.get_origin(hint) is Literal:
        return None, typing.get_args(hint)
    inner = [_limit(argument) for argument in typing.get_args(hint)]
    ranges = [allowed for allowed, _ in inner if allowed is not None]
    choices = [choice for _, some in inner for choice in some]
    if choices and type(None) in typing.get_args(hint):
        choices.append(None)
    return (ranges[0] if ranges else None), tuple(choices)
