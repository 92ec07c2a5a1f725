"""Scores of saliency sources, beside controls: a table for each set of annotations with all
metrics, and one matrix of sources and annotations.

The report takes them from the exams of params.yaml, RESULTS.md from the records of exams.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from pipeline.config.tables import EVALUATION_KEYS
from pipeline.parts.charts import number, recall_curve
from pipeline.parts.exams import OCCLUDED, UNIFORM, read_exam
from pipeline.results.data import Item
from pipeline.results.record import Record
from pipeline.results.verdict import FEWEST
from rl.statistics import student_interval

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
# What a tenth of the frame, removed where a map is strongest, changes of a policy.
KL, VALUE = "occlusion_kl", "occlusion_value"
OCCLUSION = {"occlusion KL": KL, "occlusion ΔV": VALUE}
MATRIX = {"NSS": "nss", "sAUC": "shuffled_auc", "recall": "recall", "F": "f_max"} | {
    "occlusion KL": KL
}
OWN = {"shuffled": "shuffled", UNIFORM: "uniform attention"}  # controls that depend on the source
CONTROLS = {
    "zero": "all-zero map",
    "centre": "centre prior",
    "uniform": "uniform",
    "random": "random cells",
    "motion": "motion from the previous frame",
    "second": "a second annotator",
}
TRUTHS = {  # of annotators
    "human": "clicks",
    "simulated": "simulated clicks",
    "objects": "objects in RAM",
    "projected": "projected points",
    "gaze": "gaze",
}
# Keys of an entry that make no other method: its data and seeds, and a policy's evaluation.
SAME = {"data", "encoder", "env", "seed", "seeds", "checkpoint_every", *EVALUATION_KEYS}
Head = tuple[int, str, str]  # of a column: order and kind of the truth, name
Score = tuple[float | None, float, Sequence[float]]  # mean, share of the frames, by recording
Key = TypeVar("Key")
One = TypeVar("One")


@dataclass(frozen=True)
class Answer:
    """The scores of one source, or one seed of a policy, on annotations."""

    by: str
    truth: str
    entries: Mapping[str, Mapping[str, Any]]  # of both, and of all their inputs, by label
    scores: Mapping[str, Any]  # as `Exam.scores` gives them
    asked: Mapping[str, Any] = field(default_factory=dict)  # further keys of the exam

    def method(self, by: str) -> str:
        """The component of a source: a model, or a policy's net and agent; the label of a source
        that is gone.
        """
        entry = self.entries.get(by, {})
        net = entry.get("net", {}).get("name", "policy")
        return f"{net} of {entry['agent']}" if "agent" in entry else str(entry.get("model", by))

    @property
    def settings(self) -> dict[str, str]:
        """What makes a method beside its component: settings, the encoder's model, and the data."""
        entry = self.entries.get(self.by, {})
        own = {k: v for k, v in entry.items() if k not in {*SAME, "model", "agent", "net"}}
        own |= {k: v for k, v in entry.get("net", {}).items() if k != "name"}
        encoder = self.entries.get(f"encoders/{entry.get('encoder')}", {})
        own |= {"encoder": encoder["model"]} if encoder else {}
        own |= {"on": self._data(entry.get("data") or encoder.get("data", ""))}
        own |= {k: v for k, v in self.asked.items() if k not in ("truth", "by", "keypoints")}
        return {k: v if isinstance(v, str) else json.dumps(v) for k, v in own.items()}

    def _data(self, label: str) -> str:
        """Data in words; the game only if it is not that of the truth."""
        data = self.entries.get(label, {})
        if label.startswith("annotations/"):
            return f"{data.get('count')} annotations"
        if label.startswith("saliency/"):
            return f"maps of {self.method(data['by'])}"
        return "" if data.get("env") == self._env else str(data.get("env", ""))

    @property
    def _env(self) -> str:
        """The environment of the annotated frames."""
        label = f"frames/{self.entries.get(self.truth, {}).get('frames')}"
        return str(self.entries.get(label, {}).get("env", ""))

    @property
    def keypoints(self) -> int | None:
        """Keypoints a frame, if they are scored."""
        k = self.scores.get("detected", {}).get("k")
        return None if k is None else int(k)

    @property
    def on(self) -> Head:
        """The annotations."""
        kind = str(self.entries.get(self.truth, {}).get("annotator", "unknown"))
        if kind == "objects" and not self._env.startswith("atari/"):
            kind = "projected"
        k = f", {self.keypoints} keypoints" if self.keypoints else ""
        place = [*TRUTHS, kind].index(kind)
        return place, TRUTHS.get(kind, kind), self.truth.partition("/")[2] + k

    def score(self, row: str, key: str) -> Score:
        """`score_of` it."""
        return score_of(self.scores, row, key)


def score_of(scores: Mapping[str, Any], row: str, key: str) -> Score:
    """A score of an exam's source or of a control; the mean is None without one."""
    looked = scores.get("looked", {}).get(row, {})
    if key in looked:
        mean, defined, recordings = looked[key]
        return mean, defined / scores["frames"], recordings
    points = scores.get("detected", {}).get(row, {})
    value = scores["judged"].get(f"{row}_{key}".removeprefix("source_"), points.get(key))
    return (None if value is None else float(value)), 1.0, ()


@dataclass(frozen=True)
class Row:
    """A method, or a control, on all annotations where it is scored."""

    name: str
    key: str  # "source", or the control's
    answers: Mapping[Head, list[Answer]]

    @property
    def by(self) -> list[str]:
        """The labels of a method's sources."""
        some = [one.by for answers in self.answers.values() for one in answers]
        return sorted(set(some)) if self.key == "source" else []

    def cell(self, on: Head, key: str) -> tuple[str, str, str]:
        """The mean of a score, its interval, and the source's own controls."""
        answers = self.answers.get(on, [])
        if key in OCCLUSION.values() and self.key != "source":
            answers = []  # it is a source's own, too
        spread = _spread([one.score(self.key, key) for one in answers])
        names = [*OWN, *(OCCLUDED if key in OCCLUSION.values() else ())]
        own = {name: (OWN | CONTROLS)[name] for name in names if self.key == "source"}
        means = ((words, _mean(answers, row, key)) for row, words in own.items())
        controls = "; ".join(f"{words} {mean}" for words, mean in means if mean)
        return _mean(answers, self.key, key) or "–", spread, controls


def of_records(records: Mapping[str, Iterable[Record]]) -> list[Answer]:
    """The answers in the records of exams."""
    return [
        Answer(
            one.artifact,
            one.on,
            {label: part["entry"] for label, part in (one.made_from | one.measured_on).items()},
            one.scores,
        )
        for some in records.values()
        for one in some
        if one.on and "judged" in one.scores
    ]


def of_items(tables: Mapping[str, Sequence[Item]]) -> list[Answer]:
    """The answers in the exams of artifacts/."""
    entries = {item.key: item.entry for items in tables.values() for item in items}
    exams = [(item, read_exam(item.folder)) for item in tables["exams"] if item.manifest]
    return [
        Answer(exam.by, exam.truth, entries, exam.scores(seed), item.entry)
        for item, exam in exams
        for seed in exam.seeds
    ]


def charts(item: Item) -> dict[str, Any]:
    """The curve of recall of an exam with keypoints."""
    exam = read_exam(item.folder) if item.manifest else None
    asked = exam is not None and exam.keypoints is not None
    return {"curve": recall_curve(item.name, exam) if exam and asked else None, "exam": exam}


def tables(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """A table of all metrics for each set of annotations and number of keypoints."""
    rows, result = _rows(answers), []
    for on, column in _columns(answers).items():
        first = column[0]
        acts = any(KL in one.scores.get("looked", {}).get("source", {}) for one in column)
        columns = MAPS | (POINTS if first.keypoints else {}) | FIXATIONS
        columns |= OCCLUSION if acts else {}
        result.append({
            "truth": first.truth,
            "frames": first.scores["frames"],
            "keypoints": first.keypoints,
            "objects": first.scores.get("detected", {}),
            "columns": list(columns),
            "rows": [(row, [row.cell(on, key) for key in columns.values()])
                     for row in rows if on in row.answers],
        })  # fmt: skip
    return result


def matrix(answers: Sequence[Answer]) -> tuple[list[str], list[tuple[Row, list[list[str]]]]]:
    """Sources and controls on all annotations: the columns' names, and rows of cells of lines."""
    columns = _columns(answers)
    rows = [(row, [_lines(row, on) for on in columns]) for row in _rows(answers)]
    return [f"{kind}: {name}" for _, kind, name in columns], rows


def _lines(row: Row, on: Head) -> list[str]:
    """A line for each metric of MATRIX, and the number of seeds."""
    cells = {name: row.cell(on, key) for name, key in MATRIX.items()}
    lines = [
        "; ".join(filter(None, [f"{name} {mean} {spread}".strip(), controls]))
        for name, (mean, spread, controls) in cells.items()
        if mean != "–"
    ]
    count = len(row.answers.get(on, []))
    return lines + [f"{count} seeds"] * (count > 1 and bool(lines))


def _rows(answers: Sequence[Answer]) -> list[Row]:
    """The methods, whose sources differ in seed or game only; then the controls."""
    rows = [Row(name, "source", _columns(some)) for name, some in _methods(answers).items()]
    for key, words in CONTROLS.items():
        scored = [one for one in answers if one.score(key, "mae")[0] is not None]
        # A control is the same for all sources.
        some = {on: column[:1] for on, column in _columns(scored).items()}
        rows += [Row(words, key, some)] if some else []
    return rows


def _methods(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Answers by method: its component, and the settings in which methods of that name differ.

    A setting that one of them lacks was added to the code later, and is not compared.
    """
    names: dict[str, list[Answer]] = {}
    for method, some in _groups(answers, lambda one: one.method(one.by)).items():
        settings = [one.settings for one in some]
        shared = [key for key in settings[0] if all(key in each for each in settings)]
        differ = [key for key in shared if len({each[key] for each in settings}) > 1]
        for one, own in zip(some, settings, strict=True):
            words = [f"{key.replace('_', ' ')} {own[key]}" for key in differ if own[key]]
            names.setdefault(", ".join([method, *words]), []).append(one)
    return names


def _mean(answers: Sequence[Answer], row: str, key: str) -> str:
    """The mean, and the share of the frames for which it is defined if that is not 1; "" without
    any.
    """
    scores = [one.score(row, key) for one in answers]
    values = [value for value, *_ in scores if value is not None]
    if not values:
        return ""
    share = float(np.mean([share for _, share, _ in scores]))
    return number(float(np.mean(values))) + ("" if share == 1 else f" ({int(100 * share)} %)")


def _spread(scores: Sequence[Score]) -> str:
    """Student's interval over seeds, or over a single seed's recordings; the range of two."""
    values = [value for value, *_ in scores if value is not None]
    if len(values) == 1:
        values = list(scores[0][2])
    if len(values) < FEWEST:
        return f"({' to '.join(map(number, sorted(values)))})" if len(values) > 1 else ""
    return f"[{', '.join(map(number, student_interval(np.array(values))))}]"


def _columns(answers: Iterable[Answer]) -> dict[Head, list[Answer]]:
    return _groups(sorted(answers, key=lambda one: one.on), lambda one: one.on)


def _groups(some: Iterable[One], key: Callable[[One], Key]) -> dict[Key, list[One]]:
    """In the order of each group's first."""
    groups: dict[Key, list[One]] = {}
    for one in some:
        groups.setdefault(key(one), []).append(one)
    return groups
