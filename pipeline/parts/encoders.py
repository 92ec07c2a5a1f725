"""An encoder's artifact: its data, its files and its panels.

`images.json` states how the images of its frames are made. `encoder.pt2` and `fovea_encoder.py` are
for use outside of this repository (pretrain/fovea_encoder.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datasets import envs
from datasets.errors import FoveaError
from datasets.files import write_atomic
from datasets.pictures import spread
from datasets.sealed import MANIFEST, read_manifest
from datasets.shards import FrameSet, read_frames
from pipeline.parts.labelled import read_labelled
from pipeline.runtime.artifact import IMAGES, Artifact
from pipeline.runtime.stage import Stage
from pretrain import figures, fovea_encoder
from pretrain.encoder import Encoder, EncoderTraining
from pretrain.frozen import export, save_encoder
from pretrain.images import channels_first
from pretrain.transforms.pairs import Pairs

Columns = dict[str, NDArray[Any]]

PANEL_FRAMES = 4  # on the sheet of panels


def keep(
    stage: Stage,
    method: EncoderTraining | None,
    encoder: Encoder,
    columns: Columns,
    pairs: Pairs | None = None,
) -> None:
    """Save an encoder, export it, and save its panels, or those of its training `method`."""
    save_encoder(encoder, stage.out)
    images = json.dumps(images_of(stage.inputs["data"]), indent=1)
    write_atomic(stage.out / IMAGES, f"{images}\n".encode())
    if encoder.info is None:  # an encoder of an entry of info computes nothing
        export(encoder, stage.out / "encoder.pt2")
        alone = Path(fovea_encoder.__file__)
        write_atomic(stage.out / alone.name, alone.read_bytes())
    _picture(stage, method, encoder, columns, pairs)


def read_columns(stage: Stage, saliency: bool) -> tuple[Columns, FrameSet]:
    """The entry's data as columns, image (N, H, W, C) and, if `saliency`, saliency (N, H, W); and
    its frames.

    Raises FoveaError if the maps are of other frames, or not of all of them.
    """
    data = stage.inputs["data"]
    if data.label.startswith("frames/"):
        frames = read_frames(data.folder, data.files)
        return {"image": frames.images}, frames
    labelled = read_labelled(data)
    images = labelled.frames.images
    if not saliency:
        return {"image": images}, labelled.frames
    if len(labelled.indices) < len(images):
        raise FoveaError(
            f"{data.folder}: has maps of {len(labelled.indices)} of {len(images)} frames; "
            f"`dvc repro label@{data.label.partition('/')[2]}` labels all"
        )
    return {"image": images, "saliency": labelled.maps}, labelled.frames


def images_of(data: Artifact) -> dict[str, Any]:
    """How the images of an artifact of frames or saliency are made, and the `source` that played or
    recorded them, for `images.json`.
    """
    manifest = data.manifest
    if not data.label.startswith("frames/"):
        (label,) = (label for label in manifest["inputs"] if label.startswith("frames/"))
        manifest = read_manifest(data.folder.parents[1] / label / MANIFEST)
    entry = manifest["entry"]
    return envs.preprocessing(entry["env"]) | {"source": entry["source"]}


def _picture(
    stage: Stage,
    method: EncoderTraining | None,
    encoder: Encoder,
    columns: Columns,
    pairs: Pairs | None,
) -> None:
    """Save the sheet of panels of a method or an encoder, if it has any."""
    groups = []
    indices = np.arange(len(columns["image"])) if pairs is None else pairs.targets
    for i in indices[spread(len(indices), PANEL_FRAMES)].tolist():
        frame = {name: torch.from_numpy(rows[i : i + 1]) for name, rows in columns.items()}
        if pairs is not None:
            source = columns["image"][pairs.sources(np.array([i]), i)]
            frame["source"] = torch.from_numpy(source)
        panels = method.panels(frame) if method else {}
        groups.append(panels or encoder.panels(channels_first(frame["image"]).contiguous()))
    if any(groups):
        figures.grid(groups).save(stage.out / "panels.png")
