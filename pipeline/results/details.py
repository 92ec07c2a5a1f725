"""What the scores of the ledger come from: encoders, saliency, probes place by place, runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.results.markdown import grid
from pipeline.results.measured import Encoder, Run, Seed
from pipeline.results.predicted import BESIDE, Predicted, Scores
from pipeline.results.probed import Probed

RUN_HEAD = ["commit", "machine", "h:min", "resumed"]


def encoders(seeds: Sequence[Seed | Probed]) -> str:
    """What was pretrained for these seeds and probes, and how long it took."""
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
    return "## Encoders\n\n" + grid(head, rows) if rows else ""


def saliency(predicted: Sequence[Predicted]) -> str:
    """Every source of saliency that was judged, and beside it what it has to be read with."""
    rows = [
        [
            one.label.partition("/")[2],
            f"{one.frames} of {one.annotations.partition('/')[2]}"
            + (", simulated clicks" if one.simulated else ""),
            _beside(one.scores, "f_max", 3),
            _beside(one.scores, "f_adaptive", 3),
            _beside(one.scores, "mae", 4),
            f"{one.updates:,}" if one.updates else "",
            str(one.held_out_maps or ""),
            _beside(one.held_out, "f_max", 3),
            _beside(one.held_out, "mae", 4),
            "" if one.taught is None else f"{one.taught:.3f}",
            _in_a_cell(one.run) if one.run else "not recorded",
            one.note,
        ]
        for one in predicted
    ]
    head = ["source", "judged on", "F", "F, twice the mean", "MAE", "updates"]
    head += ["held out", "F there", "MAE there", "F, taught", "run", "note"]
    note = (
        "\nIn brackets, where known: nothing anywhere, a bump in the middle, and the simulated "
        "clicks drawn a second time, as near as two such annotators come to one another; who knew "
        "the mean of many would come nearer. Epochs are the same for 5 to 30 annotations, and "
        "batches hold 8 at most, so updates are not: from 20 on more annotations also learn "
        "longer. F is at the best threshold unless it says otherwise. Held out: the fifth of the "
        "maps in a source's own data that did not teach it, of episodes that did. F, taught: on "
        "frames that did.\n"
    )
    return "## Saliency\n\n" + grid(head, rows) + note if rows else ""


def _beside(scores: Scores, name: str, digits: int) -> str:
    """A score, in brackets those that it is read with as far as there are any; "" without it."""
    if name not in scores:
        return ""
    beside = [f"{scores[of + name]:.{digits}f}" for of in BESIDE if of + name in scores]
    return f"{scores[name]:.{digits}f}" + (f" ({', '.join(beside)})" if beside else "")


def places(probes: Sequence[Probed]) -> str:
    """The probes place by place: means over an encoder's seeds and the ways of holding out."""
    if not probes:
        return ""
    named = list(probes[0].scores)
    rows: dict[tuple[str, str], list[Probed]] = {}
    for probe in probes:
        rows.setdefault((probe.row, probe.frames), []).append(probe)
    cells = [
        [
            row,
            str(len(seeds)),
            f"{seeds[0].rows:,} of {frames}, {seeds[0].episodes} episodes",
            *(_place(name, [seed.scores[name] for seed in seeds]) for name in named),
            _told(f"`{seed.run.commit}`" for seed in seeds),
            _told(seed.run.machine for seed in seeds),
            _told(seed.note for seed in seeds if seed.note),
        ]
        for (row, frames), seeds in rows.items()
    ]
    head = ["encoder", "seeds", "probed on", *named, "commit", "machine", "note"]
    return "## Probes: R², mean distance\n\n" + grid(head, cells)


def _place(name: str, scores: Sequence[dict[str, NDArray[np.float64]]]) -> str:
    scale, unit = (1, "px") if name.startswith("image") else (100, "cm")
    r2, error = (np.mean([one[key] for one in scores]) for key in ("r2", "error"))
    told = "constant" if np.isnan(r2) else f"{r2:.2f}"
    return f"{told}, {scale * error:.1f} {unit}"


def _told(words: Iterable[str]) -> str:
    """Each of them once."""
    return "; ".join(dict.fromkeys(words))


def runs(seeds: Sequence[Seed]) -> str:
    """Where the scores come from."""
    head = ["policy", "seed", "steps", "encoder", *RUN_HEAD, "note"]
    rows = [
        [
            seed.policy,
            str(seed.seed),
            f"{seed.entry['steps']:,}",
            f"`{seed.encoder.digest[:12]}`",
            *_run(seed.run),
            "; ".join(_said(seed)),
        ]
        for seed in seeds
    ]
    note = (
        "\nHours are those of all runs that a stage took, its seeds side by side; of one that was "
        "resumed at a42e24f or before, those of its last run. A `+` after a commit: tracked files "
        "were not as committed, in runs before fc2015d params.yaml among them, which a run on "
        "a recipe has to change.\n"
    )
    return "## Runs\n\n" + grid(head, rows) + note if rows else ""


def _said(seed: Seed) -> list[str]:
    """What has to be known of a seed beside its scores."""
    failed = f"failed: {seed.failed}" if seed.failed else ""
    unstable = f"{seed.unstable} games ended where MuJoCo became unstable" if seed.unstable else ""
    return [one for one in (failed, unstable, seed.note) if one]


def _in_a_cell(run: Run) -> str:
    again = f", resumed {run.resumed}" if run.resumed else ""
    return f"`{run.commit}`, {run.machine}, {_time(run)} h{again}"


def _run(run: Run) -> list[str]:
    return [f"`{run.commit}`", run.machine, _time(run), str(run.resumed)]


def _time(run: Run) -> str:
    hours, minutes = divmod(round(run.hours * 60), 60)
    return f"{hours}:{minutes:02d}"
