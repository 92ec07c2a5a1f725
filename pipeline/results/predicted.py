"""Scores of saliency that were kept: one JSON file in `pipeline/recipes/measured/saliency/` for a
source and the annotations that it was judged on.

As with policies, only sources at a recipe's own settings are taken, everything that they were made
from and judged on included, or a note says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.errors import FoveaError
from pipeline.results.measured import MEASURED, Run, read_kept, record_of, run_of, write_kept
from pipeline.results.settings import checked_recipes, differences_of_all, home_of
from pipeline.runtime import artifact

PREDICTED = MEASURED / "saliency"
SHOWN = ("f_max", "f_adaptive", "mae")  # see pretrain/metrics/saliency.py
# Nothing anywhere, a bump in the middle, and the same annotator's clicks drawn a second time.
BESIDE = ("zero_", "centre_", "redrawn_")

NEAR = 0.01  # what a student's F may lack of its teacher's

Scores = dict[str, float]  # f_max, zero_f_max, ...; no F where no map has a salient pixel


@dataclass(frozen=True)
class Predicted:
    """One source of saliency, judged on annotated frames that it did not learn from."""

    label: str  # "predictors/reach-30"
    annotations: str  # "annotations/reach-further"
    frames: int
    simulated: bool  # whether nobody clicked
    scores: Scores
    held_out: Scores  # on the fifth of the maps of its own data that did not teach it
    held_out_maps: int  # so many; 0 for what learned from no maps
    taught: float | None  # F on frames that taught it, where it learned from maps
    updates: int | None  # of its training
    digest: str
    teacher: str | None  # the digest of the source whose maps it learned
    run: Run | None  # of the stage that made it
    note: str

    @property
    def file(self) -> str:
        """`predictors-reach-30-on-reach-further.json`."""
        return file_name(self.annotations, self.label)


def file_name(annotations: str, label: str) -> str:
    """Of what is kept, and of what `python -m pipeline.commands.judge` writes."""
    return f"{label.replace('/', '-')}-on-{annotations.partition('/')[2]}.json"


def read_predicted(folder: Path = PREDICTED) -> dict[str, list[Predicted]]:
    """Label of a source -> what it was judged on. FoveaError naming a file that is malformed, or of
    other settings.
    """
    found: dict[str, list[Predicted]] = {}
    for path in sorted(folder.glob("*.json")):
        one = _checked(path, read_kept(path, "judge it again"))
        found.setdefault(one.label, []).append(one)
    return found


def add_predicted(
    annotations: str,
    label: str,
    note: str = "",
    *,
    root: Path = artifact.ROOT,
    folder: Path = PREDICTED,
) -> Path:
    """Keep what `python -m pipeline.commands.judge ANNOTATIONS LABEL` found; returns the file.

    Raises FoveaError where it was not judged, or is not at a recipe's settings and no note says so.
    """
    found = root / ".runs" / "judge" / file_name(annotations, label)
    if not found.exists():
        raise FoveaError(
            f"{found}: not there yet; "
            f"`python -m pipeline.commands.judge {annotations} {label}` writes it"
        )
    table, _, name = label.partition("/")
    value = json.loads(found.read_text("utf-8"))
    made = value["made_from"][label]["digest"]
    value |= {"note": note, "run": record_of(root, f"{artifact.STAGES[table]}-{name}", made)}
    path = folder / found.name
    _checked(path, value)
    write_kept(path, value)
    return path


def summary(found: Mapping[str, Sequence[Predicted]], labels: Sequence[str]) -> str:
    """The mean scores of the sources named, as a line of the ledger, what they come to first; ""
    where none is there.
    """
    kept = [one for label in labels for one in found.get(label, ())]
    if not kept:
        return ""
    names = ", ".join(one.label.partition("/")[2] for one in kept)
    there = sum(label in found for label in labels)
    if there < len(labels):
        names += f", {there} of {len(labels)} so far"
    pairs = _taught(kept, found)
    text = (
        f"**{_verdict(kept)}{_beside_teachers(pairs)}.** MAE {_mean(kept, 'mae', 4)}, F "
        f"{_mean(kept, 'f_max', 3)}; nothing anywhere has MAE {_mean(kept, 'zero_mae', 4)}, a bump "
        f"in the middle F {_mean(kept, 'centre_f_max', 3)}"
    )
    if all(one.scores.get("redrawn_mae") is not None for one in kept):
        f, error = _mean(kept, "redrawn_f_max", 3), _mean(kept, "redrawn_mae", 4)
        text += f", the clicks drawn a second time MAE {error}, F {f}"
    if pairs:
        text += f", their teachers F {_mean([teacher for _, teacher in pairs], 'f_max', 3)}"
    text += f" ({names}; {sum(one.frames for one in kept)} frames"
    return text + (", simulated clicks)" if any(one.simulated for one in kept) else ")")


def _verdict(kept: Sequence[Predicted]) -> str:
    """Each source's error against that of a map of zeros, and F against a second drawing's."""
    errors = [(one.scores["mae"], one.scores["zero_mae"]) for one in kept]
    below = sum(own < zero for own, zero in errors)
    text = f"Error {'below' if below else 'above'} that of nothing anywhere"
    if 0 < below < len(kept):
        text += f" for {below} of {len(kept)}"
    pairs = [(one.scores.get("f_max"), one.scores.get("redrawn_f_max")) for one in kept]
    shares = [own / again for own, again in pairs if own is not None and again]
    if shares:
        text += f", F {100 * np.mean(shares):.0f} % of that of the clicks drawn a second time"
        text += f" ({len(shares)} of {len(kept)} known)" if len(shares) < len(kept) else ""
    return text


def _taught(
    kept: Sequence[Predicted], found: Mapping[str, Sequence[Predicted]]
) -> list[tuple[Predicted, Predicted]]:
    """Students and their very teachers, judged on the same."""
    every = {(one.digest, one.annotations): one for many in found.values() for one in many}
    pairs = [(one, every.get((one.teacher or "", one.annotations))) for one in kept]
    return [(one, teacher) for one, teacher in pairs if teacher]


def _beside_teachers(pairs: Sequence[tuple[Predicted, Predicted]]) -> str:
    """By how much the students' F differs, and for how many that is no worse than asked for."""
    scores = [(one.scores.get("f_max"), teacher.scores.get("f_max")) for one, teacher in pairs]
    gaps = [own - taught for own, taught in scores if own is not None and taught is not None]
    if not gaps:
        return ""
    near = sum(round(gap, 3) >= -NEAR for gap in gaps)  # as it is told
    told = ", ".join(f"{gap:+.3f}" for gap in gaps)
    return f", F at most {NEAR} below their teachers' for {near} of {len(gaps)} ({told})"


def _mean(kept: Sequence[Predicted], score: str, digits: int) -> str:
    """Mean and, of several, deviation; maps without a salient pixel have no F."""
    values = [value for one in kept if (value := one.scores.get(score)) is not None]
    if not values:
        return "none"
    deviation = f" ({np.std(values, ddof=1):.{digits}f})" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def _checked(path: Path, value: Any) -> Predicted:
    try:
        found = _predicted(value)
        made = value["made_from"] | value["judged_on"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FoveaError(f"{path}: malformed ({error!r}); judge it again") from error
    if path.name != found.file:
        raise FoveaError(f"{path}: holds the scores of {found.file}; rename or remove it")
    table, _, name = found.label.partition("/")
    recipe = home_of(table, name, made)
    if recipe is None:
        raise FoveaError(f"{path}: {name} stands in none of {', '.join(checked_recipes())}")
    changed = differences_of_all(made, recipe)
    if changed and not found.note:
        raise FoveaError(
            f"{path}: {'; '.join(changed)} not as in the recipes; say so in a note (--note), which "
            "the ledger shows"
        )
    return found


def _predicted(value: Mapping[str, Any]) -> Predicted:
    annotations = str(value["annotations"])
    made_from, source = value["made_from"], str(value["source"])
    teachers = [
        m for label, m in made_from.items() if label != source and label.startswith("predictors/")
    ]
    updates = value["held_out"].get("steps")
    return Predicted(
        label=source,
        annotations=annotations,
        frames=int(value["frames"]),
        simulated=value["judged_on"][annotations]["entry"]["annotator"] == "simulated",
        scores=_scores(value["scores"])
        | {key: float(value["scores"][key]) for key in ("mae", "zero_mae")},
        held_out=_scores(value["held_out"]),
        held_out_maps=int(value["held_out"].get("held_out", 0)),
        taught=value["held_out"].get("taught_f_max"),
        updates=None if updates is None else int(updates),
        digest=str(made_from[source]["digest"]),
        teacher=str(teachers[0]["digest"]) if teachers else None,
        run=None if value["run"] is None else run_of(value["run"]),
        note=str(value["note"]),
    )


def _scores(written: Mapping[str, Any]) -> Scores:
    names = [f"{beside}{score}" for beside in ("", *BESIDE) for score in SHOWN]
    scores = {name: float(written[name]) for name in names if written.get(name) is not None}
    if not np.isfinite(list(scores.values())).all():
        raise ValueError("scores must be finite numbers")
    return scores
