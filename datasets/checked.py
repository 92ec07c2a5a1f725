"""Dataclasses that check themselves: the range of a number stands in its type.

    @dataclass(frozen=True)
    class Config(Checked):
        steps: Count = 100_000
        gamma: Fraction = 0.99
        pad: Literal["zero", "learned"] = "zero"

A file's `Config` is read from `params.yaml` and from the `config.json` of artifacts that may come
from anywhere, so values are checked on construction, wherever they come from. A rule that two
fields share goes into `rules()`.
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
    """The numbers from `low` to `high`; a bound itself is left out where it is `open`."""

    low: float = -math.inf
    high: float = math.inf
    open: bool = False  # the lower bound

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open else value >= self.low
        return math.isfinite(value) and above and value <= self.high

    def rule(self, value: float) -> str:
        """What `value` must be, as in `steps: 0, must be at least 1`."""
        if math.isinf(value):
            return "finite"
        if self.low == 0 and self.high == 1 and not self.open:
            return "between 0 and 1"
        if value > self.high:
            return f"at most {self.high:,}"
        return f"{'above' if self.open else 'at least'} {self.low}"


Count = Annotated[int, Range(1, 10**12)]  # of steps, frames, units: at least one
Natural = Annotated[int, Range(0, 10**12)]  # zero too, as a seed
Width = Annotated[int, Range(1, 16_384)]  # of a layer: units, channels, dimensions
Depth = Annotated[int, Range(1, 256)]  # layers on top of one another
Side = Annotated[int, Range(1, 4_096)]  # of an image, in pixels
Fraction = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, open=True)]
NonNegative = Annotated[float, Range(0)]


class Checked:
    """Base of a frozen dataclass whose fields' types say what values they take."""

    def __post_init__(self) -> None:
        """Raise ValueError listing every field that is out of its range, one a line."""
        mistakes = list(_out_of_range(self))
        mistakes = mistakes or list(self.rules())  # a rule may rely on every single value
        if mistakes:
            raise ValueError("\n".join(mistakes))

    def rules(self) -> Iterator[str]:
        """What is wrong with fields taken together, as `name: value, must be ...`."""
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
