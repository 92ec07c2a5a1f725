"""Stage `fit`: data -> a predictor of saliency, trained or not. `python -m pipeline.fit NAME`.

Data with maps, annotations or saliency, has a train/validation split of four fifths and one fifth:
the same for every predictor of the data, so that their metrics are comparable. Validation frames
are of the training frames' episodes, and on saliency the metrics measure the imitation of its
source. An exam scores predictors on other episodes.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from datasets.pictures import spread
from datasets.saliency import Indices
from datasets.shards import read_frames
from pipeline.config.tables import component
from pipeline.parts.labelled import Labelled, read_labelled
from pipeline.parts.maps import label, predict
from pipeline.parts.overlays import PICTURES, overlays
from pipeline.parts.scores import scores_of, scores_of_maps
from pipeline.parts.training import train
from pipeline.runtime.stage import Stage, main
from pretrain.encoder import SaliencySource
from pretrain.frozen import save_saliency
from pretrain.images import channels_first

VALIDATION = 0.2  # share of the maps
SCORED_FRAMES = 200  # training frames that are scored, at most


def run(stage: Stage) -> dict[str, Any]:
    """Fit one entry's predictor to its data, save it, score it and draw its maps."""
    module = component("pretrain.saliency", stage.entry.keys.model)
    data = stage.inputs["data"]
    metrics: dict[str, Any] = {}
    if data.label.startswith("frames/"):
        frames = read_frames(data.folder, data.files)
        predictor = module.fit(stage.entry.config, channels_first(frames.images))
        indices = np.arange(len(frames))
    else:
        labelled = read_labelled(data)
        frames = labelled.frames
        training, validation = split(len(labelled.indices))
        predictor = _fit(stage, module, labelled, training, metrics)
        metrics |= {"maps": len(labelled.indices), "held_out": len(validation)}
        metrics |= scores_of(predictor, labelled, validation)
        metrics |= _on_training(predictor, labelled, training)
        indices = labelled.indices[validation]
    save_saliency(predictor, stage.out)
    sample = indices[spread(len(indices), PICTURES)]
    overlays(frames, sample, label(predictor, frames, sample, "cpu")).save(
        stage.out / "overlay.png"
    )
    return {"frames": len(frames)} | metrics


def split(count: int) -> tuple[Indices, Indices]:
    """The training and the validation rows of `count` maps; a single map is in both."""
    order = np.random.default_rng(0).permutation(count)
    size = max(1, round(VALIDATION * count))
    return np.sort(order[size:] if count > 1 else order), np.sort(order[:size])


def _fit(
    stage: Stage, module: ModuleType, labelled: Labelled, training: Indices, metrics: dict[str, Any]
) -> SaliencySource:
    columns, config = labelled.columns(training), stage.entry.config
    if not config.learns:
        source: SaliencySource = module.fit(config, channels_first(columns["image"]))
        return source
    height, width, channels = columns["image"].shape[1:]
    method = module.Training(config, (channels, height, width))
    metrics |= train(stage, "fit", method, columns)
    source = method.saliency()
    return source


def _on_training(source: SaliencySource, labelled: Labelled, training: Indices) -> dict[str, float]:
    """Scores on training frames; validation frames are of the same episodes, so very similar."""
    some = training[spread(len(training), SCORED_FRAMES)]
    maps = predict(source, labelled.columns(some)["image"])
    return scores_of_maps(maps, labelled.maps[some], "taught_")


if __name__ == "__main__":
    main("fit", "predictors", run)
