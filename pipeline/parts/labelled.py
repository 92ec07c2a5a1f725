"""Frames with the maps that an artifact has of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.errors import FoveaError
from datasets.saliency import Indices, Maps, read_saliency
from datasets.shards import FrameSet, read_frames
from pipeline.runtime.artifact import STAGES, Artifact, open_artifact


@dataclass(frozen=True)
class Labelled:
    """A data set's frames and, for `indices` of them, rising, maps (M, H, W)."""

    frames: FrameSet
    indices: Indices
    maps: Maps

    def columns(self, chosen: Indices) -> dict[str, NDArray[np.uint8]]:
        """What the labels numbered `chosen` teach: image (n, H, W, 3) and saliency (n, H, W)."""
        return {
            "image": self.frames.images[self.indices[chosen]],
            "saliency": self.maps[chosen],
        }


def read_labelled(data: Artifact) -> Labelled:
    """The maps of an annotations or saliency artifact and the frames that they were made of.

    Raises FoveaError where those frames are not there or have been built anew since.
    """
    root = data.folder.parents[1]
    made_of = {label: d for label, d in data.manifest["inputs"].items() if label[:7] == "frames/"}
    ((label, digest),) = made_of.items()
    source = open_artifact(label, root)
    if source.digest != digest:
        table, name = data.label.split("/")
        raise FoveaError(
            f"{data.folder}: its maps are of {label} with the digest {digest}, but that has "
            f"{source.digest} now; `dvc repro {STAGES[table]}@{name}` builds it anew"
        )
    frames = read_frames(source.folder, source.files)
    return Labelled(frames, *read_saliency(data.folder, frames, data.files))
