"""The ledger as a page of Markdown, and its summary as a piece of HTML for the report."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from itertools import chain

from pipeline.results.claims import JOINT, Claims, Score, Table
from pipeline.results.data import reference
from pipeline.results.details import encoders, places, runs, saliency
from pipeline.results.judged import NOT_RUN, Comparison, Measured, Ours, compare, count, ours
from pipeline.results.markdown import grid
from pipeline.results.paired import paired
from pipeline.results.predicted import summary
from pipeline.results.probed import with_pooled
from pipeline.results.verdict import UNDER_POWERED

HEAD = """\
# Results

Rendered by `make results`. Our scores in the tables are those of the files in
`pipeline/recipes/measured/`, one a seed, and other lines name the file that their numbers are from;
none is written by hand. The papers' numbers, the words, what a run is reckoned to cost, and the
notes, which also tell what was seen on the way, stand in `pipeline/results/*.yaml`.
[How to read this](#how-to-read-this).
"""
FOOT = """\
## How to read this

- A score is the mean over seeds (in brackets: its 95 % interval, seeds and their games resampled;
  of one seed there is none), and the interquartile mean of all their games. Seeds that failed are
  in: they play with the last weights they kept, or at random without any.
- A table of means or success rates takes the 50 games after the last step, one of medians the
  checkpoint of the best median, as the papers do. A game succeeds if any of its steps does.
  Policies on Atari are evaluated at ε 0.001, noise off.
- A table of linear probes has no policies: it is R² of the best linear map from an encoder's frozen
  features to where tip, object and goal are in the image, averaged over the three, on episodes that
  the map was not fitted on (`pipeline/commands/probe.py`); it is fitted on 100 frames, or on all of
  the others where it says so, and of all tokens side by side in place of their mean where it says
  so. A row of all tasks is their mean, seed by seed. Its intervals are Student's and Welch's over
  seeds, each the mean over three ways of holding episodes out.
- Saliency is judged on annotated frames of other episodes: F-measure with precision weighed higher
  (beta² 0.3; a pixel is salient from half of the true map on), at the best of 256 thresholds and at
  twice each map's mean, and the mean absolute error of the maps (`pretrain/metrics/saliency.py`).
- A verdict rests on the 95 % interval of the difference of two methods' scores.
  **reproduced**: it excludes 0 on the paper's side. **not reproduced**: it excludes 0 on the other
  side, or holds 0 but not the paper's difference. **under-powered**: it holds both, or a side has
  fewer than three seeds, or it holds 0 and the paper gives no number. The seeds a side that would
  find the paper's difference in four of five cases follow from the paper's own deviations; they
  are named where there were fewer, also beside a difference that was not reproduced.
  Questions of our own, which no paper asked, **hold** or **do not hold** by the same rule; where
  neither can be said, there stands the difference that as many seeds, as far apart as these are,
  would find in four of five cases.
- Intervals of policies' scores from few seeds are narrower than they should be: a bootstrap can't
  show what no seed did. Of 400 simulated pairs of methods that did not differ (normal scores, 50
  games a seed), the interval excluded 0, on either side, for 17 % with 3 seeds a side, 12 % with 5
  and 10 % with 10; a difference that is there is excluded as often. And of this many comparisons
  some come out either way by chance.
- Only runs at a recipe's own settings get here, so never a quick run, or a note says what differs.
- Published random and human scores: DQN Zoo (rl/reference_scores.json).
"""


def render(papers: Sequence[Claims], measured: Measured) -> str:
    """All of RESULTS.md."""
    seeds = list(chain.from_iterable(kept for _, kept in sorted(measured.policies.items())))
    probes = list(chain.from_iterable(kept for _, kept in sorted(measured.probes.items())))
    predicted = list(chain.from_iterable(kept for _, kept in sorted(measured.saliency.items())))
    parts = [
        HEAD,
        *(_paper_s(claims, measured) for claims in papers),
        encoders([*seeds, *probes]),
        saliency(predicted),
        places(probes),
        runs(seeds),
        FOOT,
    ]
    return "\n".join(part for part in parts if part)


def fragment(papers: Sequence[Claims], measured: Measured) -> str:
    """Summaries and the verdicts there are as HTML, a heading and what follows, no styles."""
    text = """\
<h2>Against the papers</h2>
<p>These are runs at the papers' settings, not those above; all of them, and how to read a verdict,
are in <code>RESULTS.md</code>.</p>
"""
    for claims in papers:
        compared = compare(claims, measured)
        text += f"<p>{_html(claims.paper)}. {_html(_summary(claims, compared, measured))}</p>\n"
        for own in (False, True):
            rows = [_verdict_row(one) for one in compared if one.verdict and one.table.own == own]
            if rows:
                kind = "Questions of our own" if own else "Verdicts"
                table = _html_table(f"{kind}, {claims.name}", rows)
                said = f"{len(rows)} answers to questions of our own"  # many: opened if wanted
                text += f"<details><summary>{said}</summary>\n{table}</details>\n" if own else table
    return text


def _paper_s(claims: Claims, measured: Measured) -> str:
    """A paper's part of the page."""
    compared = compare(claims, measured)
    parts = [
        f"## {claims.name}\n\n{claims.source}\n\n{_summary(claims, compared, measured)}\n",
        _verdicts(compared),
        _scale(claims, measured),
        *(_table(table, compared, measured) for table in claims.tables),
        _lines(claims, measured),
    ]
    return "\n".join(part for part in parts if part)


def _summary(claims: Claims, compared: Sequence[Comparison], measured: Measured) -> str:
    text = ""
    for kind, own in (("Comparisons", False), ("Questions of our own", True)):
        some = [one for one in compared if one.table.own == own]
        if some:
            words = ", ".join(f"{n} {word}" for word, n in count(some).items())
            text += f"{kind}, {len(some)}: {words}. "
    rows = {(t.protocol == "probe", row) for t in claims.tables for row in t.scores}
    asked = [row for probe, row in rows if not probe]
    kept = [measured.policies[row] for row in asked if row in measured.policies]
    text += f"Seeds so far: {sum(map(len, kept))}, of {len(kept)} of the {len(asked)} policies"
    if probed := [row for probe, row in rows if probe and JOINT not in row]:
        there = len(with_pooled(measured.probes, probed).keys() & set(probed))
        text += f", {there} of the {len(probed)} probes"
    return f"{text}."


VERDICT_HEAD = ["table", "game", "comparison", "paper", "ours", "95 % interval", "verdict"]


def _verdicts(compared: Sequence[Comparison]) -> str:
    rows = [_verdict_row(one) for one in compared if one.verdict]
    return grid(VERDICT_HEAD, rows) if rows else ""


def _verdict_row(one: Comparison) -> list[str]:
    row = [
        one.table.name,
        one.better.game,
        f"{one.better.method} above {one.other.method}",
        _number(one.gap.size, one.table, "+") if one.gap else "no number",
    ]
    if one.verdict is None:
        return [*row, "", "", f"{NOT_RUN}, {one.table.brief}: {' and '.join(one.lacking)}"]
    difference, low, high = (
        _number(value, one.table, "+")
        for value in (one.verdict.difference, one.verdict.low, one.verdict.high)
    )
    interval = "too few seeds" if math.isnan(one.verdict.low) else f"{low} to {high}"
    needed = f", {one.seeds_needed} seeds a side would tell" if one.seeds_needed else ""
    if one.table.own and one.word == UNDER_POWERED and not math.isnan(one.verdict.detectable):
        needed = f", {_number(one.verdict.detectable, one.table)} would show"
    failed = f", {one.failed} of {one.seeds} seeds failed" if one.failed else ""
    return [*row, difference, interval, f"**{one.word}**{needed}{failed}"]


def _scale(claims: Claims, measured: Measured) -> str:
    """What random play and people score, to read returns by."""
    scored = [table for table in claims.tables if table.protocol in ("mean", "median")]
    games = dict.fromkeys(s.game for table in scored for s in table.scores.values())
    seeds = chain.from_iterable(measured.policies.values())
    played = {seed.entry["env"]: seed.random for seed in seeds}
    rows = []
    for game in games:
        env = f"atari/{game}"
        published = reference(env)
        here = f"{played[env].mean():,.1f}" if env in played else NOT_RUN
        rows.append([game, f"{published['random']:,.1f}", here, f"{published['human']:,.1f}"])
    head = ["game", "random, published", "random, here", "human, published"]
    return "### Scale\n\n" + grid(head, rows) if rows else ""


NAMES = {"success": "success rates", "probe": "R² of linear probes"}  # of protocols; else a plural
DIGITS = {"success": 2, "probe": 3}  # else 1


def _table(table: Table, compared: Sequence[Comparison], measured: Measured) -> str:
    kind = NAMES.get(table.protocol, f"{table.protocol}s")
    trials = "not in the paper" if table.own else f"{table.trials} trials in the paper"
    text = f"### {table.name}\n\nRecipe `{table.recipe}`, {kind}, {trials}. {table.note}"
    middle = ["interquartile mean"] if table.protocol not in NAMES else []
    head = ["game", "method", "paper (deviation)", "ours", *middle, "seeds"]
    rows = [_score(score, table, measured) for score in table.scores.values()]
    rows += [[s.game, s.method, _paper(s, table), "not part of Fovea"] for s in table.others]
    rows = [row + [""] * (len(head) - len(row)) for row in rows]
    text = text.rstrip() + "\n\n" + grid(head, rows)
    if at_random := _successes_at_random(table, measured):
        text += f"\nThe uniform random policy, here: {at_random}.\n"
    # By identity: two tables may hold equal scores.
    pairs = [_verdict_row(one)[1:] for one in compared if one.table is table]
    if pairs:
        text += "\n" + grid(VERDICT_HEAD[1:], pairs)
    if any(policy not in measured.of(table) for policy in table.scores):
        text += f"\nNot run, where it says so: {table.why}.\n"
    return text


def _successes_at_random(table: Table, measured: Measured) -> str:
    """Its success rate in each game of a table of such; empty where none is measured."""
    if table.protocol != "success":
        return ""
    rates = {
        score.game: _number(float(seed.random_successes.mean()), table)
        for score in table.scores.values()
        for seed in measured.policies.get(score.policy, [])
        if seed.random_successes is not None
    }
    return ", ".join(f"{rate} on {game}" for game, rate in rates.items())


def _score(score: Score, table: Table, measured: Measured) -> list[str]:
    """A row; shorter than the head where there is no more to say."""
    row = [score.game, score.method, _paper(score, table)]
    kept = measured.of(table)
    if score.policy not in kept:
        return [*row, NOT_RUN]
    found: Ours = ours(kept[score.policy], table.protocol)
    several = found.seeds > 1  # one tells nothing of how seeds differ
    middle = [_with_interval(found.iqm, found.iqm_interval if several else None, table)]
    seeds = f"{found.seeds}" + (f", {found.failed} failed" if found.failed else "")
    return [
        *row,
        _with_interval(found.mean, found.mean_interval if several else None, table),
        *(middle if table.protocol not in NAMES else []),
        seeds,
    ]


def _paper(score: Score, table: Table) -> str:
    if score.mean is None:
        return "no number"
    deviation = "" if score.deviation is None else f" ({_number(score.deviation, table)})"
    return f"{_number(score.mean, table)}{deviation}"


def _with_interval(value: float, interval: tuple[float, float] | None, table: Table) -> str:
    if interval is None:
        return _number(value, table)
    low, high = (_number(end, table) for end in interval)
    return f"{_number(value, table)} [{low}, {high}]"


def _number(value: float, table: Table, sign: str = "") -> str:
    return f"{value:{sign},.{DIGITS.get(table.protocol, 1)}f}"


def _lines(claims: Claims, measured: Measured) -> str:
    rows = []
    for line in claims.lines:
        kept = measured.saliency
        if line.than:
            found = paired(kept, line.predictors, line.than, line.claims)
        else:
            found = line.ours or summary(kept, line.predictors)
        rows.append([line.what, line.paper, found or f"{NOT_RUN}: {line.why}"])
    return "### Other tables and the figures\n\n" + grid(["what", "paper", "here"], rows)


def _html_table(name: str, rows: Sequence[Sequence[str]]) -> str:
    head, body = _html_row("th", VERDICT_HEAD), "".join(_html_row("td", row) for row in rows)
    return f"""\
<div class="wide" role="region" aria-label="{_html(name)}" tabindex="0">
<table>
<thead>
{head}</thead>
<tbody>
{body}</tbody>
</table>
</div>
"""


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_html(cell)}</{tag}>' for cell in cells)}</tr>\n"


def _html(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(text))
