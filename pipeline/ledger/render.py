"""The ledger as a page of Markdown: the paper's numbers, ours, and a verdict on each comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pipeline.ledger import verdict
from pipeline.ledger.claims import Claims, Score, Table
from pipeline.ledger.measured import Seed
from rl.statistics import bootstrap_interval, interquartile_mean

Games = NDArray[np.float64]
Measured = Mapping[str, Sequence[Seed]]

STATISTICS: dict[str, Callable[[Games], float]] = {
    "mean": lambda games: float(games.mean()),
    "median": lambda games: float(np.median(games)),
}
HEAD = """\
# Results

{paper}

Rendered by `make results` from the files in `pipeline/recipes/measured/`, one a seed; nothing here
is written by hand. {count}
"""
FOOT = """\
## How to read this

- A score is the mean over seeds (in brackets: its 95 % interval, seeds and their games resampled),
  and the interquartile mean of all games. Seeds that failed are in: they play with the last weights
  they kept, or at random without any.
- `mean` tables take the 50 games after the last step, `median` tables the checkpoint of the best
  median, as the paper does. All policies are evaluated at ε 0.001, noise off.
- **reproduced**: the 95 % interval of the difference excludes 0 on the paper's side.
  **not reproduced**: it excludes 0 on the other side, or holds 0 but not the paper's difference.
  **under-powered**: it holds both, or a side has fewer than three seeds; the seeds a side that
  would find the paper's difference in four of five cases follow from the paper's own deviations.
- Intervals from three or four seeds are narrower than they should be: a bootstrap can't show what
  no seed did. Read their verdicts with that in mind.
- Quick runs never get here: only runs at a recipe's own settings are kept.
"""


def render(claims: Claims, measured: Measured) -> str:
    """All of RESULTS.md."""
    claimed = {policy for table in claims.tables for policy in table.scores}
    seeds = list(chain.from_iterable(measured[policy] for policy in sorted(measured)))
    count = f"So far {len(seeds)} seeds of {len(measured)} of the {len(claimed)} policies were run."
    parts = [HEAD.format(paper=claims.paper, count=count)]
    parts += [_table(table, measured) for table in claims.tables]
    parts += [_lines(claims), _runs(seeds), FOOT]
    return "\n".join(part for part in parts if part)


def _table(table: Table, measured: Measured) -> str:
    rows = [_score(score, table, measured) for score in table.scores.values()]
    text = f"## {table.name}\n\nRecipe `{table.recipe}`, {table.trials} trials in the paper."
    text += f" {table.note}\n\n" if table.note else "\n\n"
    text += _grid(
        ["game", "method", "paper (deviation)", "ours", "interquartile mean", "seeds"], rows
    )
    if table.comparisons:
        judged = [
            _comparison(better, other, table, measured) for better, other in table.comparisons
        ]
        head = ["game", "comparison", "paper", "ours", "95 % interval", "verdict"]
        text += "\n" + _grid(head, judged)
    if not any(policy in measured for policy in table.scores):
        text += f"\nNot run: {table.why}.\n"
    return text


def _score(score: Score, table: Table, measured: Measured) -> list[str]:
    paper = f"{score.mean:,.1f} ({score.deviation:,.1f})"
    if score.policy not in measured:
        return [score.game, score.method, paper, "not run", "", ""]
    seeds = measured[score.policy]
    games = [seed.games(table.protocol) for seed in seeds]
    statistic = STATISTICS[table.protocol]
    ours = float(np.mean([statistic(g) for g in games]))
    low, high = bootstrap_interval(games, statistic)
    failed = sum(seed.failed is not None for seed in seeds)
    count = f"{len(seeds)}" + (f", {failed} failed" if failed else "")
    middle = interquartile_mean(np.concatenate(games))
    return [
        score.game, score.method, paper, f"{ours:,.1f} [{low:,.1f}, {high:,.1f}]",
        f"{middle:,.1f}", count,
    ]  # fmt: skip


def _comparison(better: Score, other: Score, table: Table, measured: Measured) -> list[str]:
    gap = better.mean - other.mean
    row = [better.game, f"{better.method} above {other.method}", f"+{gap:,.1f}"]
    lacking = [score.method for score in (better, other) if score.policy not in measured]
    if lacking:
        return [*row, "", "", f"not run: {' and '.join(lacking)}"]
    sides = [
        [seed.games(table.protocol) for seed in measured[score.policy]] for score in (better, other)
    ]
    deviations = (better.deviation, other.deviation)
    found = verdict.judge(sides[0], sides[1], gap, STATISTICS[table.protocol], deviations)
    interval = "" if math.isnan(found.low) else f"{found.low:+,.1f} to {found.high:+,.1f}"
    needed = f", about {found.seeds_needed} seeds a side" if found.seeds_needed else ""
    return [*row, f"{found.difference:+,.1f}", interval, f"**{found.word}**{needed}"]


def _lines(claims: Claims) -> str:
    rows = [[line.what, line.paper, line.ours or f"not run: {line.why}"] for line in claims.lines]
    return "## Other tables and the figures\n\n" + _grid(["what", "paper", "here"], rows)


def _runs(seeds: Sequence[Seed]) -> str:
    """Where the numbers come from."""
    if not seeds:
        return ""
    head = ["policy", "seed", "steps", "commit", "machine", "training, hours", "resumed", "note"]
    rows = [
        [
            seed.policy,
            str(seed.seed),
            f"{seed.entry['steps']:,}",
            f"`{seed.run['commit']}`",
            _machine(seed),
            f"{seed.run['wall_seconds'] / 3600:.1f}",
            str(seed.run["resumed"]),
            seed.failed or seed.note,
        ]
        for seed in seeds
    ]
    note = (
        "\nHours are those of the stage's last run, its seeds side by side; a run that was resumed "
        "took longer in all.\n"
    )
    return "## Runs\n\n" + _grid(head, rows) + note


def _machine(seed: Seed) -> str:
    machine = seed.run["machine"]
    return f"{machine['cores']} cores, {machine['processor']}, {machine['gpu'] or 'no GPU'}"


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
