"""Curves of trainings and evaluations, for the report and docs/."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from pipeline.parts.charts import Axes, chart, number, span, thin
from pipeline.parts.episodes import Episodes, Floats
from pipeline.results.data import Score


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
    axes = Axes((0, max([*steps, 1])), span(values + [1.0] * (what == "success")))
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
    return chart(axes, "environment steps", what, body, label)


def loss_curve(name: str, curve: Floats) -> Markup:
    """The training loss over steps; `curve` is (n, 2)."""
    curve = thin(curve)
    axes = Axes((0, max(float(curve[-1, 0]), 1.0)), span([*curve[:, 1], 0.0]))
    label = f"Training loss of {name}, from {curve[0, 1]:.3f} to {curve[-1, 1]:.3f}"
    line = f'<polyline class="mean thin" points="{axes.points(curve)}"/>'
    return chart(axes, "training steps", "loss", [line], label)
