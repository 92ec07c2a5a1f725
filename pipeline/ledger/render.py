"""The ledger as a page of Markdown, and its summary as a piece of HTML for the report."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from itertools import chain

from pipeline.ledger.claims import Claims, Score, Table
from pipeline.ledger.judged import NOT_RUN, Comparison, Measured, Ours, compare, count, ours
from pipeline.ledger.measured import Encoder, Run, Seed
from pipeline.reporting.data import reference

HEAD = """\
# Results

{paper}

{summary} [How to read this](#how-to-read-this).

Rendered by `make results` from the files in `pipeline/recipes/measured/`, one a seed; nothing here
is written by hand.
"""
FOOT = """\
## How to read this

- A score is the mean over seeds (in brackets: its 95 % interval, seeds and their games resampled),
  and the interquartile mean of all their games. Seeds that failed are in: they play with the last
  weights they kept, or at random without any.
- A table of means takes the 50 games after the last step, one of medians the checkpoint of the best
  median, as the paper does. All policies are evaluated at ε 0.001, noise off.
- A verdict rests on the 95 % interval of the difference of two methods' scores.
  **reproduced**: it excludes 0 on the paper's side. **not reproduced**: it excludes 0 on the other
  side, or holds 0 but not the paper's difference. **under-powered**: it holds both, or a side has
  fewer than three seeds, or it holds 0 and the paper gives no number. The seeds a side that would
  find the paper's difference in four of five cases follow from the paper's own deviations.
- Intervals from few seeds are narrower than they should be: a bootstrap can't show what no seed
  did. Of 400 simulated pairs of methods that did not differ (normal scores, 50 games a seed), the
  interval excluded 0, on either side, for 17 % with 3 seeds a side, 12 % with 5 and 10 % with 10.
  And of this many comparisons some come out either way by chance.
- Only runs at a recipe's own settings get here, so never a quick run. Where an encoder had less
  pretraining than the recipe's, a note says so.
- Published random and human scores: DQN Zoo (rl/reference_scores.json).
"""


def render(claims: Claims, measured: Measured) -> str:
    """All of RESULTS.md."""
    compared = compare(claims, measured)
    seeds = list(chain.from_iterable(measured[policy] for policy in sorted(measured)))
    parts = [
        HEAD.format(paper=claims.paper, summary=_summary(claims, compared, measured)),
        _verdicts(compared),
        _scale(claims, seeds),
        *(_table(table, compared, measured) for table in claims.tables),
        _lines(claims),
        _encoders(seeds),
        _runs(seeds),
        FOOT,
    ]
    return "\n".join(part for part in parts if part)


def fragment(claims: Claims, measured: Measured) -> str:
    """The summary and the verdicts there are as HTML, a heading and what follows, no styles."""
    compared = compare(claims, measured)
    rows = [_verdict_row(one) for one in compared if one.verdict]
    text = f"""\
<h2>Against the paper</h2>
<p>{_html(claims.paper)}. {_html(_summary(claims, compared, measured))} These are runs at the
paper's settings, not those above; all of them, and how to read a verdict, are in
<code>RESULTS.md</code>.</p>
"""
    if rows:
        head, body = _html_row("th", VERDICT_HEAD), "".join(_html_row("td", row) for row in rows)
        text += f"""\
<div class="wide" role="region" aria-label="Verdicts" tabindex="0">
<table>
<thead>
{head}</thead>
<tbody>
{body}</tbody>
</table>
</div>
"""
    return text


def _summary(claims: Claims, compared: Sequence[Comparison], measured: Measured) -> str:
    claimed = {policy for table in claims.tables for policy in table.scores}
    seeds = sum(len(measured[policy]) for policy in measured)
    words = ", ".join(f"{n} {word}" for word, n in count(compared).items())
    return (
        f"Of the {len(compared)} comparisons: {words}. Measured so far: {seeds} seeds of "
        f"{len(measured)} of the {len(claimed)} policies."
    )


VERDICT_HEAD = ["table", "game", "comparison", "paper", "ours", "95 % interval", "verdict"]


def _verdicts(compared: Sequence[Comparison]) -> str:
    rows = [_verdict_row(one) for one in compared if one.verdict]
    return _grid(VERDICT_HEAD, rows) if rows else ""


def _verdict_row(one: Comparison) -> list[str]:
    row = [
        one.table.name,
        one.better.game,
        f"{one.better.method} above {one.other.method}",
        f"{one.gap.size:+,.1f}" if one.gap else "no number",
    ]
    if one.verdict is None:
        return [*row, "", "", f"{NOT_RUN}: {' and '.join(one.lacking)}"]
    low, high = one.verdict.low, one.verdict.high
    interval = "too few seeds" if math.isnan(low) else f"{low:+,.1f} to {high:+,.1f}"
    needed = f", about {one.seeds_needed} seeds a side" if one.seeds_needed else ""
    return [*row, f"{one.verdict.difference:+,.1f}", interval, f"**{one.word}**{needed}"]


def _scale(claims: Claims, seeds: Sequence[Seed]) -> str:
    """What random play and people score, to read the tables by."""
    games = dict.fromkeys(s.game for table in claims.tables for s in table.scores.values())
    played = {seed.entry["env"]: seed.random for seed in seeds}
    rows = []
    for game in games:
        env = f"atari/{game}"
        published = reference(env)
        here = f"{played[env].mean():,.1f}" if env in played else NOT_RUN
        rows.append([game, f"{published['random']:,.1f}", here, f"{published['human']:,.1f}"])
    head = ["game", "random, published", "random, here", "human, published"]
    return "## Scale\n\n" + _grid(head, rows)


def _table(table: Table, compared: Sequence[Comparison], measured: Measured) -> str:
    text = f"## {table.name}\n\nRecipe `{table.recipe}`, {table.protocol}s, {table.trials} trials "
    text += f"in the paper. {table.note}".rstrip() + "\n\n"
    head = ["game", "method", "paper (deviation)", "ours", "interquartile mean", "seeds"]
    rows = [_score(score, table, measured) for score in table.scores.values()]
    rows += [[s.game, s.method, _paper(s), "not part of Fovea", "", ""] for s in table.others]
    text += _grid(head, rows)
    # By identity: two tables may hold equal scores.
    pairs = [_verdict_row(one)[1:] for one in compared if one.table is table]
    if pairs:
        text += "\n" + _grid(VERDICT_HEAD[1:], pairs)
    if any(policy not in measured for policy in table.scores):
        text += f"\nNot run, where it says so: {table.why}.\n"
    return text


def _score(score: Score, table: Table, measured: Measured) -> list[str]:
    row = [score.game, score.method, _paper(score)]
    if score.policy not in measured:
        return [*row, NOT_RUN, "", ""]
    found: Ours = ours(measured[score.policy], table.protocol)
    seeds = f"{found.seeds}" + (f", {found.failed} failed" if found.failed else "")
    return [
        *row,
        _with_interval(found.mean, found.mean_interval),
        _with_interval(found.iqm, found.iqm_interval),
        seeds,
    ]


def _paper(score: Score) -> str:
    if score.mean is None:
        return "no number"
    deviation = "" if score.deviation is None else f" ({score.deviation:,.1f})"
    return f"{score.mean:,.1f}{deviation}"


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:,.1f} [{interval[0]:,.1f}, {interval[1]:,.1f}]"


def _lines(claims: Claims) -> str:
    rows = [[line.what, line.paper, line.ours or f"{NOT_RUN}: {line.why}"] for line in claims.lines]
    return "## Other tables and the figures\n\n" + _grid(["what", "paper", "here"], rows)


def _encoders(seeds: Sequence[Seed]) -> str:
    """What was pretrained for these seeds, and how long it took."""
    found: dict[str, Encoder] = {s.encoder.digest: s.encoder for s in seeds if s.encoder.trained}
    rows = [
        [
            encoder.name,
            f"`{encoder.digest[:12]}`",
            f"{encoder.frames:,}",
            str(encoder.entry.get("epochs", "")),
            *(_run(encoder.run) if encoder.run else ["not recorded"] + [""] * 3),
        ]
        for encoder in found.values()
    ]
    head = ["encoder", "digest", "frames", "epochs", *RUN_HEAD]
    return "## Encoders\n\n" + _grid(head, rows) if rows else ""


def _runs(seeds: Sequence[Seed]) -> str:
    """Where the scores come from."""
    head = ["policy", "seed", "steps", "encoder", *RUN_HEAD, "note"]
    rows = [
        [
            seed.policy,
            str(seed.seed),
            f"{seed.entry['steps']:,}",
            f"`{seed.encoder.digest[:12]}`",
            *_run(seed.run),
            "; ".join(x for x in (seed.failed and f"failed: {seed.failed}", seed.note) if x),
        ]
        for seed in seeds
    ]
    note = (
        "\nHours are those of the stage's last run, its seeds side by side; one that was resumed "
        "took longer in all. A `+` after a commit: tracked files, params.yaml among them, were not "
        "as committed.\n"
    )
    return "## Runs\n\n" + _grid(head, rows) + note if rows else ""


RUN_HEAD = ["commit", "machine", "hours", "resumed"]


def _run(run: Run) -> list[str]:
    return [f"`{run.commit}`", run.machine, f"{run.hours:.1f}", str(run.resumed)]


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    """Text that can't end its cell, nor its line, nor be taken for HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_html(cell)}</{tag}>' for cell in cells)}</tr>\n"


def _html(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(text))
