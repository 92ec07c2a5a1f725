from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from datasets.checked import Checked, Count, Fraction, Positive, Range, Width


@dataclass(frozen=True)
class Config(Checked):
    steps: Count = 10
    gamma: Fraction = 0.5
    rate: Positive = 1.0
    share: Annotated[float, Range(0, 1, open=True)] = 1.0
    pad: Literal["zero", "learned"] = "zero"
    channels: tuple[Width, Width] = (1, 2)
    size: Width | None = None
    mode: Literal["fast"] | None = None

    def rules(self) -> Iterator[str]:
        if self.gamma > self.rate:
            yield f"gamma: {self.gamma}, must not exceed rate"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps: 0, must be at least 1"),
        ({"gamma": 1.5}, "gamma: 1.5, must be between 0 and 1"),
        ({"gamma": float("nan")}, "gamma: nan, must be between 0 and 1"),
        ({"rate": 0.0}, "rate: 0.0, must be above 0"),
        ({"rate": float("inf")}, "rate: inf, must be finite"),
        ({"share": 0.0}, "share: 0.0, must be above 0"),
        ({"share": 1.5}, "share: 1.5, must be at most 1"),
        ({"pad": "one"}, "pad: 'one', must be zero or learned"),
        ({"channels": (1, 0)}, r"channels: \(1, 0\), must be at least 1"),
        ({"size": -1}, "size: -1, must be at least 1"),
        ({"size": 10**9}, "size: 1000000000, must be at most 16,384"),
        ({"mode": "slow"}, "mode: 'slow', must be fast"),
        ({"gamma": 0.9, "rate": 0.5}, "gamma: 0.9, must not exceed rate"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**changes)  # type: ignore[arg-type]


def test_every_mistake_is_listed() -> None:
    with pytest.raises(ValueError, match=r"steps: .*\ngamma: ") as caught:
        Config(steps=0, gamma=2.0)
    assert len(str(caught.value).splitlines()) == 2


def test_values_within_their_ranges_are_accepted() -> None:
    assert Config(steps=1, gamma=0.0, size=4, mode="fast").size == 4
