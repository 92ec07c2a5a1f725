"""Curves as inline SVG, for the report, exams and docs/; equal data gives equal bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from pipeline.parts.exams import Exam

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 480, 280
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 40
POINTS = 240  # of a long curve, after averaging neighbours
# page.html's rules, for a chart in a file of its own.
STYLE = (
    "text{font:11px sans-serif;fill:#63676c}path,polyline{fill:none;stroke-linecap:round}"
    ".grid{stroke:#e3dfd6}.seed{stroke:#12686f;stroke-width:1.2;opacity:.55}"
    ".mean{stroke:#12686f;stroke-width:2.6}circle.mean{fill:#fffefb;stroke-width:2}"
)
CONTROL = ".control{stroke:#8d8778;stroke-width:1.4;stroke-dasharray:5 4}"
NAMES = 0.13  # in units of ε: width for the curves' names, to their right
APART = 11  # pixels between two names


@dataclass(frozen=True)
class Axes:
    """The scales from data coordinates to SVG coordinates."""

    x: tuple[float, float]
    y: tuple[float, float]

    def px(self, value: float) -> float:
        """The horizontal coordinate of a value."""
        return LEFT + (value - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - LEFT - RIGHT)

    def py(self, value: float) -> float:
        """The vertical coordinate of a value."""
        low, high = self.y
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def points(self, curve: Floats) -> str:
        """A curve (n, 2) as SVG points."""
        return " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in curve)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten) within [low, high]."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number with at most three significant digits: 12,300, 65.2, 0.482."""
    short = float(f"{value:.3g}") + 0.0
    text = f"{short:,.0f}" if abs(short) >= 100 else f"{short:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def percent(share: float) -> str:
    """A share as a percentage: 12.3 %, 96 %."""
    return f"{number(round(100 * share, 1))}\N{NO-BREAK SPACE}%"


def thin(curve: Floats, points: int = POINTS) -> Floats:
    """A curve (n, 2) with at most `points` rows, each the average of its neighbours."""
    if len(curve) <= points:
        return curve
    return np.stack([part.mean(axis=0) for part in np.array_split(curve, points)])


def span(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis for these values, with a margin; from 0 if that is the smallest."""
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or 1.0
    return (low if low == 0 else low - room), high + room


def chart(axes: Axes, x_name: str, y_name: str, body: Sequence[str], label: str) -> Markup:
    """An SVG of the grid, the axes' names and the body."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    grid = []
    for value in ticks(*axes.y):
        y = axes.py(value)
        grid.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
        grid.append(
            f'<text x="{LEFT - 8}" y="{y:.1f}" dy=".35em" text-anchor="end">{value:,.10g}</text>'
        )
    for value in ticks(*axes.x):
        x = axes.px(value)
        anchor = "end" if x > right - 12 else "middle"
        grid.append(
            f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="{anchor}">{value:,.10g}</text>'
        )
    names = (
        f'<text class="name" x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 5}" text-anchor="middle">'
        f"{x_name}</text>"
        f'<text class="name" transform="translate(12 {(TOP + bottom) / 2:.0f}) rotate(-90)"'
        f' text-anchor="middle">{y_name}</text>'
    )
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(label)}">'
        f"{''.join(grid)}{names}{''.join(body)}</svg>"
    )


def recall_curve(name: str, exam: Exam) -> Markup:
    """Recall of objects over the distance ε of a hit: the mean of a source's seeds, each seed, and
    the controls.
    """
    curves = {key: np.array(row.curve) for key, row in exam.controls.items() if row.points}
    del curves["zero"]
    seeds = [np.array(seed.source.curve) for seed in exam.seeds]
    curves["shuffled"] = np.mean([seed.shuffled.curve for seed in exam.seeds], axis=0)
    mean = np.mean(seeds, axis=0)
    last = float(mean[-1, 0])
    axes = Axes((0, last + NAMES), (0, 1.05))
    at = axes.px(exam.epsilon)
    body = [f'<path class="control" d="M{at:.1f} {axes.py(0):.1f}V{axes.py(1):.1f}"/>']
    body += [f'<polyline class="control" points="{axes.points(c)}"/>' for c in curves.values()]
    body += [f'<polyline class="seed" points="{axes.points(c)}"/>' for c in seeds if len(seeds) > 1]
    body.append(f'<polyline class="mean" points="{axes.points(mean)}"/>')
    named = {"source": mean, **curves}
    for key, y in _apart({key: axes.py(float(c[-1, 1])) for key, c in named.items()}).items():
        body.append(f'<text x="{axes.px(last) + 6:.1f}" y="{y:.1f}" dy=".35em">{key}</text>')
    recall = float(
        np.mean([seed.source.points["recall"] for seed in exam.seeds if seed.source.points])
    )
    label = f"Recall of {name}: {recall:.2f} at ε = {exam.epsilon}, {exam.keypoints} keypoints"
    return chart(axes, "distance ε", "recall", body, label)


def _apart(places: dict[str, float]) -> dict[str, float]:
    """The vertical coordinates of the curves' names, moved apart until no two overlap."""
    names = sorted(places, key=lambda key: places[key])
    moved: list[float] = []
    for name in names:
        moved.append(max(places[name], moved[-1] + APART) if moved else places[name])
    below = moved[-1] - (HEIGHT - BOTTOM)
    return {name: y - max(0.0, below) for name, y in zip(names, moved, strict=True)}


def standalone(chart: Markup, style: str = STYLE) -> str:
    """A chart as the content of an SVG file, in the report's light colours."""
    head, rest = str(chart).split(">", 1)
    head = head.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}"', 1)
    return f'{head}><style>{style}</style><rect width="100%" height="100%" fill="#fffefb"/>{rest}\n'
