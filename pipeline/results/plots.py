"""Curves as inline SVG, for the report and docs/; equal data gives equal bytes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from pipeline.parts.episodes import Episodes, Floats
from pipeline.results.data import Interval, Score

WIDTH, HEIGHT = 480, 280
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 40
POINTS = 240  # of a long curve, after averaging neighbours
# page.html's rules, for a chart in a file of its own.
STYLE = (
    "text{font:11px sans-serif;fill:#63676c}path,polyline{fill:none;stroke-linecap:round}"
    ".grid{stroke:#e3dfd6}.seed{stroke:#12686f;stroke-width:1.2;opacity:.55}"
    ".mean{stroke:#12686f;stroke-width:2.6}circle.mean{fill:#fffefb;stroke-width:2}"
)


@dataclass(frozen=True)
class Axes:
    """The scales from data coordinates to SVG coordinates."""

    x: Interval
    y: Interval

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


def learning_curve(
    name: str,
    seeds: Sequence[Episodes],
    what: str = "return",
    scores: tuple[Score, Score] | None = None,
    training: Sequence[Floats] = (),
) -> Markup:
    """Return or success at checkpoints over environment steps; `training` are seeds' episodes
    (n, 2).

    There is a thin line for each seed, and a bold one for their mean. `scores` are the final score
    and the uniform random policy's, whose intervals are drawn at the end and across the chart. A
    failed seed's line ends in a cross.
    """
    steps = sorted({step for seed in seeds for step in seed.steps})
    means = [(s, np.concatenate([seed.at(s) for seed in seeds]).mean()) for s in steps]
    mean = np.array(means, np.float64).reshape(-1, 2)
    lines = [
        np.array([(s, seed.at(s).mean()) for s in seed.steps], np.float64).reshape(-1, 2)
        for seed in seeds
    ]
    values = [0.0, *(v for line in (*lines, *training) for v in line[:, 1])]
    values += [end for score in scores or () for end in score.mean_interval]
    axes = Axes((0, max([*steps, 1])), _span(values + [1.0] * (what == "success")))
    left, right = axes.px(0), axes.px(axes.x[1])
    body = []
    if scores:
        low, high = (axes.py(end) for end in scores[1].mean_interval)
        body.append(f'<rect class="chance" x="{left:.1f}" y="{high:.1f}" '
                    f'width="{right - left:.1f}" height="{low - high:.1f}"/>')  # fmt: skip
        y = axes.py(scores[1].mean)
        body.append(f'<path class="chance" d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
    for points in training:
        marks = "".join(f"M{axes.px(x):.1f} {axes.py(y):.1f}h0" for x, y in points)
        body.append(f'<path class="games" d="{marks}"/>')
    body += [f'<polyline class="seed" points="{axes.points(line)}"/>' for line in lines]
    for seed, line in zip(seeds, lines, strict=True):
        if seed.failed is not None:
            x, y = line[-1] if len(line) else (0.0, seed.random.mean())
            x, y = axes.px(x) - 5, axes.py(y) - 5
            body.append(f'<path class="failed" d="M{x:.1f} {y:.1f}l10 10m0 -10l-10 10"/>')
    body.append(f'<polyline class="mean" points="{axes.points(mean)}"/>')
    if scores:
        low, high = (axes.py(end) for end in scores[0].mean_interval)
        body.append(f'<path class="bar" d="M{right:.1f} {low:.1f}V{high:.1f}"/>')
    body += [
        f'<circle class="mean" cx="{axes.px(x):.1f}" cy="{axes.py(y):.1f}" r="3.5"/>'
        for x, y in mean
    ]
    last = f"{number(mean[-1, 1])} after {mean[-1, 0]:,.0f} steps" if len(mean) else "no checkpoint"
    label = f"Mean {what} of {name}: {last}, {len(seeds)} seeds"
    return _chart(axes, "environment steps", what, body, label)


def standalone(chart: Markup) -> str:
    """A chart as the content of an SVG file, in the report's light colours."""
    head, rest = str(chart).split(">", 1)
    head = head.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}"', 1)
    return f'{head}><style>{STYLE}</style><rect width="100%" height="100%" fill="#fffefb"/>{rest}\n'


def loss_curve(name: str, curve: Floats) -> Markup:
    """The training loss over steps; `curve` is (n, 2)."""
    curve = thin(curve)
    axes = Axes((0, max(float(curve[-1, 0]), 1.0)), _span([*curve[:, 1], 0.0]))
    label = f"Training loss of {name}, from {curve[0, 1]:.3f} to {curve[-1, 1]:.3f}"
    line = f'<polyline class="mean thin" points="{axes.points(curve)}"/>'
    return _chart(axes, "training steps", "loss", [line], label)


def _span(values: Sequence[float]) -> Interval:
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or 1.0
    return (low if low == 0 else low - room), high + room


def _chart(axes: Axes, x_name: str, y_name: str, body: Sequence[str], label: str) -> Markup:
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
