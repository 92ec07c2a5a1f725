"""Exams in the report: a table of sources and controls for each set of annotations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.parts.charts import number, recall_curve
from pipeline.parts.exams import Exam, Row, read_exam
from pipeline.results.data import Item

MAPS = {"F": "f_max", "error": "mae"}  # column -> score
FIXATIONS = {
    "NSS": "nss",
    "KL": "kl",
    "sAUC": "shuffled_auc",
    "AUC": "auc_judd",
    "CC": "cc",
    "SIM": "sim",
    "IG": "information_gain",
}
POINTS = {"recall": "recall", "precision": "precision"}
CONTROLS = {
    "zero": "all-zero map",
    "centre": "centre prior",
    "uniform": "uniform",
    "random": "random cells",
    "motion": "motion from the previous frame",
    "second": "a second annotator",
}


def tables(items: Sequence[Item]) -> list[dict[str, Any]]:
    """A table for each set of annotations and number of keypoints."""
    exams = [(item, read_exam(item.folder)) for item in items if item.manifest]
    groups: dict[tuple[str, int | None], list[tuple[Item, Exam]]] = {}
    for item, exam in exams:
        groups.setdefault((exam.truth, exam.keypoints), []).append((item, exam))
    return [_table(some) for some in groups.values()]


def charts(item: Item) -> dict[str, Any]:
    """The curve of recall of an exam with keypoints."""
    exam = read_exam(item.folder) if item.manifest else None
    asked = exam is not None and exam.keypoints is not None
    return {"curve": recall_curve(item.name, exam) if exam and asked else None, "exam": exam}


def _table(some: Sequence[tuple[Item, Exam]]) -> dict[str, Any]:
    exam = some[0][1]
    columns = MAPS | (POINTS if exam.keypoints else {}) | FIXATIONS
    return {
        "truth": exam.truth,
        "frames": exam.frames,
        "keypoints": exam.keypoints,
        "epsilon": exam.epsilon,
        "objects": exam.objects,
        "columns": list(columns),
        "sources": [
            (item.name, one.by, [_source(one, key) for key in columns.values()])
            for item, one in some
        ],
        "controls": [
            (words, [_shown([row], key, exam.frames) for key in columns.values()])
            for name, words in CONTROLS.items()
            if (row := exam.controls.get(name))
        ],
    }


def _source(exam: Exam, key: str) -> tuple[str, str]:
    """A source's score, the mean of its seeds; and that of its maps of other frames."""
    own, shuffled = ([getattr(s, part) for s in exam.seeds] for part in ("source", "shuffled"))
    beside = f"shuffled {_shown(shuffled, key, exam.frames)}"
    if len(own) > 1:
        values = [value for row in own if (value := _value(row, key)) is not None]
        ends = " to ".join(number(end) for end in (min(values), max(values))) if values else "–"
        beside = f"{ends}, {len(own)} seeds; {beside}"
    return _shown(own, key, exam.frames), beside


def _shown(rows: Sequence[Row], key: str, frames: int) -> str:
    """The mean, and the share of the frames for which the score is defined if it is not 1."""
    values = [_value(row, key) for row in rows]
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "–"
    defined = [row.fixations[key][1] for row in rows if key in row.fixations]
    share = float(np.mean(defined)) / frames if defined else 1.0
    return number(float(np.mean(numbers))) + ("" if share == 1 else f" ({int(100 * share)} %)")


def _value(row: Row, key: str) -> float | None:
    if key in row.fixations:
        return row.fixations[key][0]
    value = row.maps.get(key, (row.points or {}).get(key))
    return None if value is None else float(value)
