"""Stage `pretrain`: frames or saliency -> a frozen encoder. `python -m pipeline.pretrain NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.errors import FoveaError
from datasets.pictures import spread
from datasets.shards import FrameSet, read_frames
from pipeline.config.tables import word_module
from pipeline.parts.labelled import read_labelled
from pipeline.parts.training import train
from pipeline.runtime.stage import Stage, main
from pretrain import figures
from pretrain.encoder import Encoder, EncoderTraining
from pretrain.frozen import export, load_saliency, save_encoder
from pretrain.transforms.pairs import Pairs

Columns = dict[str, NDArray[Any]]

PICTURED = 4  # frames on the sheet of panels


def run(stage: Stage) -> dict[str, Any]:
    """Pretrain one entry's encoder, save it, export it, and picture what it sees."""
    module = word_module("pretrain.encoders", stage.entry.keys.model)
    config = stage.entry.config
    columns, frames = read_columns(stage, config.needs_saliency)
    pairs = Pairs(frames, config.pair_gap, config.seed) if config.pair_gap else None
    count, height, width, channels = columns["image"].shape
    shape = (channels, height, width)
    features = module.Features(**stage.entry.features)
    carried = [load_saliency(_source(stage))] if config.needs_saliency else []
    metrics: dict[str, Any] = {"frames": count}
    method: EncoderTraining | None = None
    if config.learns:
        method = module.Pretraining(config, shape)
        clip_norm = config.gradient_norm
        metrics |= train(stage, "pretrain", method, columns, clip_norm=clip_norm, pairs=pairs)
        encoder = method.encoder(features, *carried)
    else:
        encoder = module.Encoder(config, features, shape, *carried)
    own = (p for name, p in encoder.named_parameters() if not name.startswith("saliency."))
    metrics["parameters"] = sum(p.numel() for p in own)  # without the source it carries
    keep(stage, method, encoder, columns, pairs)
    return metrics


def keep(
    stage: Stage,
    method: EncoderTraining | None,
    encoder: Encoder,
    columns: Columns,
    pairs: Pairs | None = None,
) -> None:
    """Save a trained method's encoder, export it, and picture what it sees."""
    save_encoder(encoder, stage.out)
    if encoder.info is None:  # of an entry of info there is nothing to compute
        export(encoder, stage.out / "encoder.pt2")
    _picture(stage, method, encoder, columns, pairs)


def read_columns(stage: Stage, saliency: bool) -> tuple[Columns, FrameSet]:
    """What the entry's data holds: image (N, H, W, C) and, where asked for, saliency (N, H, W); and
    the frames themselves.

    Raises FoveaError where the frames are not those that were labelled, or not all of them were.
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
            f"{data.folder}: labels {len(labelled.indices)} of {len(images)} frames; "
            f"`dvc repro label@{data.label.partition('/')[2]}` labels them all"
        )
    return {"image": images, "saliency": labelled.maps}, labelled.frames


def _source(stage: Stage) -> Path:
    """The complete source of saliency that the entry's data was labelled by."""
    return stage.inputs["data"].folder / "source"


def _picture(
    stage: Stage,
    method: EncoderTraining | None,
    encoder: Encoder,
    columns: Columns,
    pairs: Pairs | None,
) -> None:
    """The sheet of panels of a method, or of an encoder, that has any."""
    groups = []
    chosen = np.arange(len(columns["image"])) if pairs is None else pairs.targets
    for i in chosen[spread(len(chosen), PICTURED)].tolist():
        frame = {name: torch.from_numpy(rows[i : i + 1]) for name, rows in columns.items()}
        if pairs is not None:
            source = columns["image"][pairs.sources(np.array([i]), i)]
            frame["source"] = torch.from_numpy(source)
        panels = method.panels(frame) if method else {}
        groups.append(panels or encoder.panels(frame["image"].permute(0, 3, 1, 2).contiguous()))
    if any(groups):
        figures.grid(groups).save(stage.out / "panels.png")


if __name__ == "__main__":
    main("pretrain", "encoders", run)
