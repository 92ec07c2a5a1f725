"""Stage `fit`: data -> a predictor of saliency, learned or not. `python -m pipeline.fit NAME`."""

from __future__ import annotations

from typing import Any

import torch

from datasets.pictures import spread
from datasets.shards import read_frames
from pipeline.label import PICTURED, label, overlays
from pipeline.stage import Stage, main
from pipeline.tables import word_module
from pretrain.saliency_source import save_saliency


def run(stage: Stage) -> dict[str, Any]:
    """Fit one entry's predictor to its data, save it and picture what it finds."""
    module = word_module("pretrain.saliency", stage.entry.keys.model)
    data = stage.inputs["data"]
    frames = read_frames(data.folder, data.files)
    images = torch.from_numpy(frames.images).permute(0, 3, 1, 2)  # (N, C, H, W)
    predictor = module.fit(stage.entry.config, images)
    save_saliency(predictor, stage.out)
    picked = spread(len(frames), PICTURED)
    maps = label(predictor, frames, picked, "cpu")
    overlays(frames, picked, maps).save(stage.out / "overlay.png")
    return {"frames": len(frames)}


if __name__ == "__main__":
    main("fit", "predictors", run)
