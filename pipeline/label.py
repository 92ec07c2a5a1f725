"""Stage `label`: frames + any source of saliency -> a map a frame. `python -m pipeline.label NAME`.

The artifact has the maps and, in `source/`, the complete source, which an encoder that needs one
copies from there.
"""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import torch

from datasets.pictures import spread
from datasets.saliency import read_saliency, write_saliency_shard
from datasets.sealed import keep_if_sound
from datasets.shards import read_frames
from pipeline.parts.maps import check_size, label
from pipeline.parts.overlays import PICTURES, overlays
from pipeline.runtime.progress import Progress
from pipeline.runtime.stage import Stage, main
from pretrain.frozen import CONFIG, WEIGHTS, load_saliency

SHARD = 1024  # maps in a shard, sealed as soon as they are computed


def run(stage: Stage) -> dict[str, Any]:
    """Label every frame of one entry; an interrupted run goes on after its sealed shards."""
    data, by = stage.inputs["frames"], stage.inputs["by"]
    frames = read_frames(data.folder, data.files)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = load_saliency(by.folder, device=device)
    check_size(source.image_shape, frames, by.folder)
    progress = Progress(f"label {stage.entry.name}", len(frames), "frames")
    for stream in np.unique(frames.stream).tolist():
        mine = np.flatnonzero(frames.stream == stream)
        for shard, begin in enumerate(range(0, len(mine), SHARD)):
            path, indices = stage.out / f"{stream:03d}-{shard:05d}.tar", mine[begin : begin + SHARD]
            if not keep_if_sound(path):
                write_saliency_shard(path, frames, indices, label(source, frames, indices, device))
            progress(len(indices))
    progress.finish()
    (stage.out / "source").mkdir(exist_ok=True)
    for name in (CONFIG, WEIGHTS):
        # Content only: DVC's files are read-only, and a second attempt overwrites this copy.
        shutil.copyfile(by.folder / name, stage.out / "source" / name)
    maps = read_saliency(stage.out, frames)[1]
    sample = spread(len(frames), PICTURES)
    overlays(frames, sample, maps[sample]).save(stage.out / "overlay.png")
    return {"frames": len(frames), "mean": float(maps.mean() / 255)}


if __name__ == "__main__":
    main("label", "saliency", run)
