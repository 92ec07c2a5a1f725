"""Stage `exam`: annotations and a source of saliency -> scores. `python -m pipeline.exam NAME`.

The source's maps are compared with the annotated maps: F-measure and mean absolute error
(pretrain/metrics/saliency.py). With the annotated points as fixations they have NSS, KL divergence,
shuffled AUC and others (pretrain/metrics/fixations.py). With `keypoints`, that many keypoints of
each frame are matched with the annotated objects: recall and precision over the distance of a hit
(pretrain/metrics/keypoints.py). Controls are scored too (pipeline/parts/controls.py).

Of a policy there is also uniform attention, upsampled as its own is; and by how much its actions
and value change when the frame is occluded where a map is strongest (rl/occlusion.py).

A source that was trained on annotations of the same frames is refused. Each seed of a policy
processes the frames in time order, and has scores of its own.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.errors import FoveaError
from datasets.files import write_atomic
from datasets.pictures import spread
from datasets.saliency import Indices
from datasets.sealed import keep_if_sound, read_sealed, write_sealed
from pipeline.parts.charts import CONTROL, STYLE, recall_curve, standalone
from pipeline.parts.controls import control_maps, control_points, others, second_annotator
from pipeline.parts.detection import detection_scores, on_frame
from pipeline.parts.exams import FILE, OCCLUDED, UNIFORM, Exam, Row, read_exam
from pipeline.parts.fixated import Fixated
from pipeline.parts.labelled import Labelled, read_labelled, read_points
from pipeline.parts.maps import FloatMaps
from pipeline.parts.pictured import PICTURES, Column, pictured
from pipeline.parts.scores import scores_of_maps
from pipeline.parts.sources import Source, open_sources, points_of
from pipeline.runtime.artifact import Artifact, lineage
from pipeline.runtime.progress import Progress
from pipeline.runtime.stage import Stage, main
from pretrain.metrics.keypoints import EPSILON, Points, ceiling, keypoints


@dataclass(frozen=True)
class Truth:
    """Annotated frames with their points, and the objects (n, 2) of each if keypoints are
    scored.
    """

    labelled: Labelled
    fixated: Fixated
    objects: list[Points] | None

    def score(self, maps: FloatMaps, points: list[Points] | None) -> dict[str, Any]:
        """The row of a source or control, for exam.json."""
        row: dict[str, Any] = {
            "maps": scores_of_maps(maps, self.labelled.maps),
            "fixations": self.fixated.scores(maps),
        }
        if self.objects is not None and points is not None:
            row["points"] = detection_scores(points, self.objects)
        return row


@dataclass(frozen=True)
class Answer:
    """A source's maps of all annotated frames, and its keypoints if they are scored."""

    seed: int | None  # of a policy
    maps: FloatMaps
    points: list[Points] | None


def run(stage: Stage) -> dict[str, Any]:
    """Score one entry's source; an interrupted run goes on after its sealed maps."""
    by, data, k = stage.inputs["by"], stage.inputs["truth"], stage.entry.keys.keypoints
    frames_entry = unseen(data.label, by.label)
    labelled = read_labelled(data)
    points = read_points(data, labelled)
    fixated = Fixated(points, labelled.frames.stream[labelled.indices])
    truth = Truth(labelled, fixated, on_frame(points) if k else None)
    answers = _answers(stage, labelled, open_sources(by, labelled.frames), k)
    maps = control_maps(labelled)
    exam = {
        "truth": data.label,
        "by": by.label,
        "frames": len(labelled.indices),
        "keypoints": k,
        "epsilon": EPSILON,
        "objects": _objects(truth, k),
        "controls": _controls(truth, k, maps)
        | _second(truth, data.manifest["entry"], frames_entry["env"]),
        "seeds": [_seed(truth, answer) | _acting(truth, by, answer, k, maps) for answer in answers],
    }
    write_atomic(stage.out / FILE, (json.dumps(exam, indent=1) + "\n").encode())
    _pictures(stage, truth, answers)
    result = read_exam(stage.out)
    if k:
        chart = recall_curve(stage.entry.name, result)
        write_atomic(stage.out / "recall.svg", standalone(chart, STYLE + CONTROL).encode())
    return summary(result)


def unseen(truth: str, by: str) -> dict[str, Any]:
    """The entry of the annotated frames.

    Raises FoveaError if the source was trained on annotations of these frames, or if an artifact
    was made from another version of its inputs than the present one.
    """
    made_from, made_of = lineage(by), lineage(truth)
    ((frames, part),) = ((label, p) for label, p in made_of.items() if label[:7] == "frames/")
    if frames in made_from and any(label.startswith("annotations/") for label in made_from):
        raise FoveaError(
            f"{by}: was trained on annotations of {frames} itself; name a truth on other frames"
        )
    return dict(part["entry"])


def _answers(
    stage: Stage, labelled: Labelled, sources: list[Source], k: int | None
) -> list[Answer]:
    count, images = len(labelled.indices), labelled.frames.images[labelled.indices]
    progress = Progress(f"exam {stage.entry.name}", len(sources) * count, "frames")
    answers = []
    for source in sources:
        maps = _maps(stage, source, labelled, progress)
        points = points_of(source, images, maps, k) if k else None
        answers.append(Answer(source.seed, maps, points))
    progress.finish()
    return answers


def _maps(stage: Stage, source: Source, labelled: Labelled, progress: Progress) -> FloatMaps:
    """A source's maps of all annotated frames, saved stream by stream."""
    streams = labelled.frames.stream[labelled.indices]
    seed = "" if source.seed is None else f"seed-{source.seed}-"
    parts = []
    for stream in np.unique(streams).tolist():
        indices = labelled.indices[streams == stream]
        path = stage.folder / f"{seed}{stream:03d}.npy"
        parts.append(_kept_maps(path, source, labelled, indices))
        progress(len(indices))
    return np.concatenate(parts)


def _kept_maps(path: Path, source: Source, labelled: Labelled, indices: Indices) -> FloatMaps:
    if not keep_if_sound(path):
        buffer = io.BytesIO()
        np.save(buffer, source.look(labelled.frames, indices), allow_pickle=False)
        write_sealed(path, buffer.getvalue())
    maps: FloatMaps = np.load(io.BytesIO(read_sealed(path)), allow_pickle=False)
    return maps


def _seed(truth: Truth, answer: Answer) -> dict[str, Any]:
    """A source's scores, and those of its maps and keypoints of other frames."""
    order, points = others(len(answer.maps)), answer.points
    shuffled = None if points is None else [points[i] for i in order.tolist()]
    return {
        "seed": answer.seed,
        "source": truth.score(answer.maps, points),
        "shuffled": truth.score(answer.maps[order], shuffled),
    }


def _pictures(stage: Stage, truth: Truth, answers: list[Answer]) -> None:
    """A sample of the frames with the truth and every answer, one below the other."""
    sample = spread(len(truth.labelled.indices), PICTURES)
    columns = []
    for answer in answers:
        name = "" if answer.seed is None else f", seed {answer.seed}"
        columns.append(Column(f"map{name}", maps=answer.maps[sample]))
        if answer.points is not None:
            points = [answer.points[i] for i in sample.tolist()]
            columns.append(Column(f"keypoints{name}", points=points))
    sheet = pictured(truth.labelled, sample, truth.objects, columns)
    sheet.save(stage.out / "pictures.png")


def _controls(truth: Truth, k: int | None, maps: Mapping[str, FloatMaps]) -> dict[str, Any]:
    points = control_points(k, len(truth.labelled.indices), maps.get("motion")) if k else {}
    return {name: truth.score(each, points.get(name)) for name, each in maps.items()}


def _second(truth: Truth, entry: dict[str, Any], env: str) -> dict[str, Any]:
    second = second_annotator(entry, env, truth.labelled)
    return {} if second is None else {"second": truth.score(second, None)}


def _acting(
    truth: Truth, by: Artifact, answer: Answer, k: int | None, controls: Mapping[str, FloatMaps]
) -> dict[str, Any]:
    """The scores of uniform attention of a policy's seed, and those of occlusion."""
    if answer.seed is None:
        return {}
    # By name, for the code stamps (pipeline/parts/sources.py).
    acting = importlib.import_module("pipeline.parts.acting")
    policy = acting.last_policy(by.folder, answer.seed)
    uniform = acting.uniform_attention(policy, truth.labelled)
    points = keypoints(torch.from_numpy(uniform)[:, None], k) if k else None
    maps = {"source": answer.maps, "shuffled": answer.maps[others(len(answer.maps))]}
    maps |= {UNIFORM: uniform} | {key: controls[key] for key in OCCLUDED if key in controls}
    return {
        UNIFORM: truth.score(uniform, points),
        "occlusion": acting.occlusion(policy, truth.labelled, maps),
    }


def _objects(truth: Truth, k: int | None) -> dict[str, float]:
    """Objects a frame, and the recall that `k` keypoints cannot exceed."""
    if truth.objects is None or k is None:
        return {}
    mean = float(np.mean([len(objects) for objects in truth.objects]))
    return {"objects_per_frame": mean, "ceiling": ceiling(truth.objects, k)}


def summary(exam: Exam) -> dict[str, Any]:
    """Means over the seeds, for the card and the manifest."""

    def mean(*keys: str) -> dict[str, float]:
        rows = [_flat(seed.source) for seed in exam.seeds]
        return {
            key: float(np.mean([row[key] for row in rows]))
            for key in keys
            if all(row.get(key) is not None for row in rows)
        }

    metrics: dict[str, Any] = {"frames": exam.frames}
    if exam.seeds[0].seed is not None:
        metrics["seeds"] = len(exam.seeds)
    names = ("nss", "kl", "shuffled_auc", "recall", "precision")
    return metrics | mean("f_max", "f_adaptive", "mae", *names)


def _flat(row: Row) -> dict[str, Any]:
    means = {name: score.mean for name, score in row.fixations.items()}
    return row.maps | means | (row.points or {})


if __name__ == "__main__":
    main("exam", "exams", run)
