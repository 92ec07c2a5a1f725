"""The report's drawings as inline SVG.

Drawn by hand rather than by a plotting library so that they take their colours from the page
(light or dark), their type size from the screen, and equal data gives equal bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from pipeline.results.data import Evaluation, Floats, Interval, Item, Score

WIDTH, HEIGHT = 480, 280
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 40
POINTS = 240  # of a long curve, after averaging neighbours
ROW = 56  # height of a row of the lineage table in pixels; page.html has the same number
# Of a chart that is not on the page: page.html's rules.
STYLE = (
    "text{font:11px sans-serif;fill:#63676c}path,polyline{fill:none;stroke-linecap:round}"
    ".grid{stroke:#e3dfd6}.seed{stroke:#12686f;stroke-width:1.2;opacity:.55}"
    ".mean{stroke:#12686f;stroke-width:2.6}circle.mean{fill:#fffefb;stroke-width:2}"
)


@dataclass(frozen=True)
class Axes:
    """Data coordinates -> the drawing's."""

    x: Interval
    y: Interval

    def px(self, value: float) -> float:
        """Horizontal place of a value."""
        return LEFT + (value - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - LEFT - RIGHT)

    def py(self, value: float) -> float:
        """Vertical place of a value."""
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
    """A score as the page prints it: 12,345, 65.2, 0.48; with a true minus sign."""
    digits = 0 if abs(value) >= 100 or value == 0 else 1 if abs(value) >= 1 else 2
    return f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def thin(curve: Floats, points: int = POINTS) -> Floats:
    """A curve (n, 2) with at most `points` rows, each the average of its neighbours."""
    if len(curve) <= points:
        return curve
    return np.stack([part.mean(axis=0) for part in np.array_split(curve, points)])


def learning_curve(
    name: str,
    evaluation: Evaluation,
    total: Score,
    chance: Score,
    games: Sequence[Floats],
    what: str = "return",
) -> Markup:
    """Evaluated score over environment steps; `games` are the seeds' training games (n, 2).

    A thin line a seed, a bold one their mean, its interval at the end, the random policy's score
    and interval across. A failed seed's line ends in a cross.
    """
    lines = [
        np.array([(s, r.mean()) for s, r in zip(seed.steps, seed.returns, strict=True)])
        for seed in evaluation.seeds
    ]
    steps = evaluation.checkpoints
    bold = np.array([(s, np.concatenate(evaluation.scores(s)).mean()) for s in steps])
    values = [v for line in (*lines, *games) if len(line) for v in line[:, 1]]
    values += [*total.mean_interval, *chance.mean_interval, 0.0]
    axes = Axes((0, max(evaluation.steps, *steps, 1)), _span(values))
    left, right = axes.px(0), axes.px(axes.x[1])
    low, high = chance.mean_interval
    body = [
        f'<rect class="chance" x="{left:.1f}" y="{axes.py(high):.1f}" width="{right - left:.1f}"'
        f' height="{axes.py(low) - axes.py(high):.1f}"/>',
        f'<path class="chance" d="M{left:.1f} {axes.py(chance.mean):.1f}H{right:.1f}"/>',
        *(_dots(axes, points) for points in games),
    ]
    for seed, line in zip(evaluation.seeds, lines, strict=True):
        body.append(f'<polyline class="seed" points="{axes.points(line)}"/>' if len(line) else "")
        if seed.failed is not None:
            x, y = line[-1] if len(line) else (0.0, chance.mean)
            body.append(_cross(axes.px(x), axes.py(y)))
    body.append(f'<polyline class="mean" points="{axes.points(bold)}"/>')
    low, high = total.mean_interval
    body.append(
        f'<path class="bar" d="M{axes.px(evaluation.steps):.1f} {axes.py(low):.1f}'
        f'V{axes.py(high):.1f}"/>'
    )
    body += [
        f'<circle class="mean" cx="{axes.px(x):.1f}" cy="{axes.py(y):.1f}" r="3.5"/>'
        for x, y in bold
    ]
    label = (
        f"Learning curve of {name}: mean {what} {number(total.mean)} after "
        f"{evaluation.steps:,} steps over {len(evaluation.seeds)} seeds, "
        f"uniform random policy {number(chance.mean)}"
    )
    return _chart(axes, "environment steps", what, body, label)


def success_curve(name: str, seeds: Sequence[Floats]) -> Markup:
    """Share of games that succeed over environment steps: a thin line a seed (n, 2), all tested at
    the same steps, a bold one their mean.
    """
    mean = np.mean(seeds, axis=0)
    steps, share = mean[-1]
    axes = Axes((0, float(steps)), _span([0.0, 1.0]))
    body = [f'<polyline class="seed" points="{axes.points(seed)}"/>' for seed in seeds]
    body.append(f'<polyline class="mean" points="{axes.points(mean)}"/>')
    body += [
        f'<circle class="mean" cx="{axes.px(x):.1f}" cy="{axes.py(y):.1f}" r="3.5"/>'
        for x, y in mean
    ]
    label = f"Success of {name}: {number(share)} after {steps:,.0f} steps"
    return _chart(axes, "environment steps", "success", body, label)


def standalone(chart: Markup) -> str:
    """A chart as a file of its own, in the report's light colours."""
    head, rest = str(chart).split(">", 1)
    head = head.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}"', 1)
    return f'{head}><style>{STYLE}</style><rect width="100%" height="100%" fill="#fffefb"/>{rest}\n'


def loss_curve(name: str, curve: Floats) -> Markup:
    """Loss of a training over its steps; `curve` is (n, 2)."""
    curve = thin(curve)
    axes = Axes((0, max(float(curve[-1, 0]), 1.0)), _span([*curve[:, 1], 0.0]))
    label = f"Training loss of {name}, from {curve[0, 1]:.3f} to {curve[-1, 1]:.3f}"
    line = f'<polyline class="mean thin" points="{axes.points(curve)}"/>'
    return _chart(axes, "training steps", "loss", [line], label)


def lineage(items: Sequence[Item]) -> Markup:
    """Which artifact came from which: a dot a table row, lines from the inputs (all further up).

    An item keeps its lane down to the last row that needs it, then the lane is free again.
    """
    last = {source: row for row, item in enumerate(items) for source in item.inputs}
    until: list[int] = []  # for each lane, the row at which it is free
    place: dict[str, tuple[int, int]] = {}
    edges, nodes = [], []
    for row, item in enumerate(items):
        lane = next((i for i, end in enumerate(until) if end <= row), len(until))
        until[lane : lane + 1] = [last.get(item.key, row + 1)]
        x, y = place[item.key] = (12 + 20 * lane, ROW // 2 + ROW * row)
        for x0, y0 in (place[source] for source in item.inputs if source in place):
            turn = y - ROW // 2
            edges.append(f'<path class="edge" d="M{x0} {y0}V{turn}Q{x0} {y} {x} {y}"/>')
        kind = "node" if item.manifest else "node missing"
        nodes.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="5.5"/>')
    width, height = 20 * len(until) + 4, ROW * len(items)
    return Markup(
        f'<svg class="lineage" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' aria-hidden="true">{"".join(edges + nodes)}</svg>'
    )


def _span(values: Sequence[float]) -> Interval:
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or 1.0
    return (low if low == 0 else low - room), high + room


def _dots(axes: Axes, points: Floats) -> str:
    marks = "".join(f"M{axes.px(x):.1f} {axes.py(y):.1f}h0" for x, y in points)
    return f'<path class="games" d="{marks}"/>' if marks else ""


def _cross(x: float, y: float) -> str:
    return f'<path class="failed" d="M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10"/>'


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
