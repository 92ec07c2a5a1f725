"""Frames with their saliency maps, and the annotated points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.annotation import gaze
from datasets.annotation.choice import keys
from datasets.annotation.maps import CANVAS, Clicks
from datasets.errors import FoveaError
from datasets.files import read_json
from datasets.saliency import Indices, Maps, read_saliency
from datasets.shards import FrameSet, read_frames
from pipeline.runtime.artifact import STAGES, Artifact, open_artifact


@dataclass(frozen=True)
class Labelled:
    """A data set's frames, and maps (M, H, W) of those at `indices`, ascending."""

    frames: FrameSet
    indices: Indices
    maps: Maps

    def columns(self, rows: Indices) -> dict[str, NDArray[np.uint8]]:
        """The maps number `rows` and their frames: image (n, H, W, 3), saliency (n, H, W)."""
        return {
            "image": self.frames.images[self.indices[rows]],
            "saliency": self.maps[rows],
        }


def read_labelled(data: Artifact) -> Labelled:
    """The maps of an annotations or saliency artifact, and their frames.

    Raises FoveaError if those frames are missing or were built again with other content.
    """
    root = data.folder.parents[1]
    frame_sets = {
        label: d for label, d in data.manifest["inputs"].items() if label[:7] == "frames/"
    }
    ((label, digest),) = frame_sets.items()
    source = open_artifact(label, root)
    if source.digest != digest:
        table, name = data.label.split("/")
        raise FoveaError(
            f"{data.folder}: its maps are of {label} with the digest {digest}, which is now "
            f"{source.digest}; `dvc repro {STAGES[table]}@{name}` builds it again"
        )
    frames = read_frames(source.folder, source.files)
    return Labelled(frames, *read_saliency(data.folder, frames, data.files))


def read_points(data: Artifact, labelled: Labelled) -> list[Clicks]:
    """The points (n, 2) on the canvas of each frame of an annotations artifact, of all annotators
    together. Gaze is read from the frames, with which it is stored.

    Raises FoveaError naming the file if it is malformed or lacks a frame.
    """
    if data.manifest["entry"]["annotator"] == "gaze":
        return [gaze.points(labelled.frames, index) for index in labelled.indices.tolist()]
    path, key = data.folder / "clicks.json", keys(labelled.frames)
    annotators = read_json(path)
    try:
        return [
            _points([one[name] for one in annotators.values() if name in one])
            for name in (key[index] for index in labelled.indices.tolist())
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise FoveaError(f"{path}: not points of these frames ({error}); annotate again") from error


def _points(several: list[object]) -> Clicks:
    """ValueError without points, or for a point beyond the canvas."""
    points = np.concatenate([np.array(each, np.float64).reshape(-1, 2) for each in several])
    if not (len(points) and np.all((points >= 0) & (points <= CANVAS))):
        raise ValueError(f"a frame with points {points.tolist()!r:.60}")
    return points
