"""Stage `label`: frames + any source of saliency -> a map a frame. `python -m pipeline.label NAME`.

The artifact holds the maps and, in `source/`, the complete source: an encoder that needs one when
it acts takes it from there.
"""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import torch

from datasets.pictures import spread
from datasets.saliency import Indices, Maps, read_saliency, write_saliency_shard
from datasets.shards import FrameSet, read_frames
from pipeline.progress import Progress
from pipeline.stage import Stage, main
from pretrain import figures, store
from pretrain.encoder import SaliencySource
from pretrain.saliency_source import load_saliency

SHARD = 1024  # maps in a shard, sealed as soon as they are there
BATCH = 32  # frames that go through the source together
PICTURED, COLUMNS = 12, 6


def run(stage: Stage) -> dict[str, Any]:
    """Label every frame of one entry; sealed shards survive an interruption."""
    data, by = stage.inputs["frames"], stage.inputs["by"]
    frames = read_frames(data.folder, data.files)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = load_saliency(by.folder, device=device)
    progress = Progress(f"label {stage.entry.name}", len(frames), "frames")
    for stream in np.unique(frames.stream).tolist():
        mine = np.flatnonzero(frames.stream == stream)
        for shard, begin in enumerate(range(0, len(mine), SHARD)):
            path, indices = stage.out / f"{stream:03d}-{shard:05d}.tar", mine[begin : begin + SHARD]
            if not path.exists():
                write_saliency_shard(path, frames, indices, label(source, frames, indices, device))
            progress(len(indices))
    progress.finish()
    (stage.out / "source").mkdir(exist_ok=True)
    for name in (store.CONFIG, store.WEIGHTS):
        shutil.copy(by.folder / name, stage.out / "source" / name)
    maps = read_saliency(stage.out, frames)[1]
    picked = spread(len(frames), PICTURED)
    overlays(frames, picked, maps[picked]).save(stage.out / "overlay.png")
    return {"frames": len(frames), "mean": float(maps.mean() / 255)}


@torch.no_grad()
def label(source: SaliencySource, frames: FrameSet, indices: Indices, device: str) -> Maps:
    """Maps (n, H, W) uint8 of `frames[indices]`."""
    maps = []
    for begin in range(0, len(indices), BATCH):
        images = torch.from_numpy(frames.images[indices[begin : begin + BATCH]])
        found = source(images.permute(0, 3, 1, 2).contiguous().to(device))  # (b, 1, H, W)
        maps.append((found[:, 0] * 255).round().byte().cpu().numpy())
    return np.concatenate(maps)


def overlays(frames: FrameSet, indices: Indices, maps: Maps) -> Any:
    """Frames with their maps over them, `COLUMNS` a row (as ViSaRL's Fig. 7)."""
    cells = {
        f"stream {frames.stream[i]}, frame {i}": figures.overlay(frames.images[i], saliency / 255.0)
        for i, saliency in zip(indices.tolist(), maps, strict=True)
    }
    named = list(cells.items())
    return figures.grid([dict(named[n : n + COLUMNS]) for n in range(0, len(named), COLUMNS)])


if __name__ == "__main__":
    main("label", "saliency", run)
