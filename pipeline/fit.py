"""Stage `fit`: data -> a predictor of saliency, learned or not. `python -m pipeline.fit NAME`.

Of data with maps, annotations or saliency, four fifths teach and one fifth judges: the same fifth
for every predictor of the data, so their metrics compare. They are about frames of the episodes
that taught, and on saliency about how well its source is imitated; pipeline/commands/judge.py asks
more.
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
from pipeline.parts.overlays import PICTURED, overlays
from pipeline.parts.scored import judged, scored
from pipeline.parts.training import train
from pipeline.runtime.stage import Stage, main
from pretrain.encoder import SaliencySource
from pretrain.frozen import save_saliency
from pretrain.images import channels_first

HELD_OUT = 0.2  # of the maps
JUDGED = 200  # at most, of those that taught


def run(stage: Stage) -> dict[str, Any]:
    """Fit one entry's predictor to its data, save it, score it and picture what it finds."""
    module = component("pretrain.saliency", stage.entry.keys.model)
    data = stage.inputs["data"]
    metrics: dict[str, Any] = {}
    if data.label.startswith("frames/"):
        frames = read_frames(data.folder, data.files)
        predictor = module.fit(stage.entry.config, channels_first(frames.images))
        shown = np.arange(len(frames))
    else:
        labelled = read_labelled(data)
        frames = labelled.frames
        taught, shown = split(len(labelled.indices))
        predictor = _taught(stage, module, labelled, taught, metrics)
        metrics |= {"maps": len(labelled.indices), "held_out": len(shown)}
        metrics |= judged(predictor, labelled, shown) | _on_taught(predictor, labelled, taught)
        shown = labelled.indices[shown]
    save_saliency(predictor, stage.out)
    picked = shown[spread(len(shown), PICTURED)]
    overlays(frames, picked, label(predictor, frames, picked, "cpu")).save(
        stage.out / "overlay.png"
    )
    return {"frames": len(frames)} | metrics


def split(count: int) -> tuple[Indices, Indices]:
    """Which of `count` maps teach and which judge; of one map, it does both."""
    order = np.random.default_rng(0).permutation(count)
    judges = max(1, round(HELD_OUT * count))
    return np.sort(order[judges:] if count > 1 else order), np.sort(order[:judges])


def _taught(
    stage: Stage, module: ModuleType, labelled: Labelled, taught: Indices, metrics: dict[str, Any]
) -> SaliencySource:
    columns, config = labelled.columns(taught), stage.entry.config
    if not config.learns:
        source: SaliencySource = module.fit(config, channels_first(columns["image"]))
        return source
    height, width, channels = columns["image"].shape[1:]
    method = module.Training(config, (channels, height, width))
    metrics |= train(stage, "fit", method, columns)
    source = method.saliency()
    return source


def _on_taught(source: SaliencySource, labelled: Labelled, taught: Indices) -> dict[str, float]:
    """Scores on frames that taught. The others are of the same episodes, so much alike."""
    some = taught[spread(len(taught), JUDGED)]
    maps = predict(source, labelled.columns(some)["image"])
    return scored(maps, labelled.maps[some], "taught_")


if __name__ == "__main__":
    main("fit", "predictors", run)
