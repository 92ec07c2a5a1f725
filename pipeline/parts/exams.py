"""exam.json: the scores of a source of saliency on annotations, and those of controls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets.errors import FoveaError
from datasets.files import read_json
from pipeline.parts import fixated

FILE = "exam.json"
UNIFORM = "uniform_attention"  # the control of a policy's own upsampling
OCCLUDED = ("random", "centre", "motion")  # controls whose cells are removed for a policy, too
Scores = dict[str, Any]  # of maps: f_max, f_adaptive, mae; of keypoints: recall, precision, curve …


@dataclass(frozen=True)
class Row:
    """The scores of one source or control."""

    maps: Scores
    fixations: fixated.Scores
    points: Scores | None  # None without keypoints

    @property
    def curve(self) -> list[tuple[float, float]]:
        """Recall at each ε."""
        curve = self.points["curve"] if self.points else {}
        return [(float(epsilon), hits / objects) for epsilon, (hits, objects, _) in curve.items()]


@dataclass(frozen=True)
class Seed:
    """A source's scores, and those of its maps and keypoints of other frames. Of a policy also
    those of uniform attention, and of occlusion by the maps of each row.
    """

    seed: int | None  # of a policy
    source: Row
    shuffled: Row
    uniform: Row | None = None
    occlusion: Mapping[str, fixated.Scores] = field(default_factory=dict)


@dataclass(frozen=True)
class Exam:
    """The content of one exam.json."""

    truth: str  # label of annotations
    by: str
    frames: int
    keypoints: int | None
    epsilon: float  # of `recall` and `precision`
    objects: Mapping[str, float]  # a frame; the recall that the keypoints cannot exceed
    controls: Mapping[str, Row]
    seeds: tuple[Seed, ...]

    def scores(self, seed: Seed) -> Scores:
        """The scores of a seed and of the controls, by the kind of score and the row's name."""
        rows = {"source": seed.source, "shuffled": seed.shuffled, **self.controls}
        rows |= {UNIFORM: seed.uniform} if seed.uniform else {}
        looked = {
            name: {**row.fixations, **seed.occlusion.get(name, {})} for name, row in rows.items()
        }
        scores: Scores = {
            "frames": self.frames,
            "judged": {
                ("" if name == "source" else f"{name}_") + key: value
                for name, row in rows.items()
                for key, value in row.maps.items()
            },
            "looked": {
                name: {key: [*score[:2], [*score.recordings]] for key, score in some.items()}
                for name, some in looked.items()
            },
        }
        if self.keypoints:
            asked = {"k": self.keypoints, "epsilon": self.epsilon, **self.objects}
            points = {name: row.points for name, row in rows.items() if row.points is not None}
            scores["detected"] = asked | points
        return scores


def read_exam(folder: Path) -> Exam:
    """exam.json in `folder`. FoveaError naming it if it is missing or malformed."""
    path = folder / FILE
    if not path.is_file():
        raise FoveaError(f"{path}: missing; run the exam again")
    value = read_json(path)
    try:
        keypoints, frames = value["keypoints"], int(value["frames"])
        asked = keypoints is not None
        return Exam(
            truth=str(value["truth"]),
            by=str(value["by"]),
            frames=frames,
            keypoints=int(keypoints) if asked else None,
            epsilon=_number(value["epsilon"]),
            objects={str(key): _number(number) for key, number in value["objects"].items()},
            controls={str(key): _row(row, asked, frames) for key, row in value["controls"].items()},
            seeds=tuple(_seeds(value["seeds"], asked, frames)),
        )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise FoveaError(f"{path}: unexpected content ({error!r}); run the exam again") from error


def _seeds(values: list[Any], asked: bool, frames: int) -> Iterator[Seed]:
    if not values:
        raise ValueError("no source")
    for one in values:
        seed, uniform = one["seed"], one.get(UNIFORM)
        occlusion = one.get("occlusion", {}).items()
        yield Seed(
            None if seed is None else int(seed),
            _row(one["source"], asked, frames),
            _row(one["shuffled"], asked, frames),
            None if uniform is None else _row(uniform, asked, frames),
            {str(name): fixated.read_scores(scores, frames) for name, scores in occlusion},
        )


def _row(value: Mapping[str, Any], asked: bool, frames: int) -> Row:
    maps = {str(key): _number(number) for key, number in value["maps"].items()}
    _ = maps["mae"]
    looked = fixated.read_scores(value["fixations"], frames)
    if not asked:
        return Row(maps, looked, None)
    points = dict(value["points"])
    for key in ("recall", "keypoints_per_frame"):
        _number(points[key])
    if points["precision"] is not None:
        _number(points["precision"])
    for epsilon, (hits, objects, keypoints) in points["curve"].items():
        if not (float(epsilon) > 0 and 0 <= hits <= objects and objects > 0 and keypoints >= hits):
            raise ValueError(f"curve at {epsilon}")
    if not points["curve"]:
        raise ValueError("no curve")
    return Row(maps, looked, points)


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r}, must be a finite number")
    return float(value)
