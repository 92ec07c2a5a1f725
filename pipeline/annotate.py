"""Stage `annotate`: clicks on some frames -> maps. `python -m pipeline.annotate NAME`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from datasets.annotation.maps import heat_map
from datasets.files import write_atomic
from datasets.saliency import write_saliency_shard
from datasets.shards import read_frames
from pipeline.label import overlays
from pipeline.stage import Stage, main
from pipeline.tables import word_module


def run(stage: Stage) -> dict[str, Any]:
    """Take one entry's clicks from its annotator; keep the clicks, their maps and a picture."""
    annotator = word_module("datasets.annotation", stage.entry.keys.annotator)
    data = stage.inputs["frames"]
    frames = read_frames(data.folder, data.files)
    env = stage.params.tables["frames"][stage.entry.keys.frames].keys.env
    clicks = annotator.annotate(stage.entry.config, env, frames, stage.entry.keys.count)
    height, width = frames.images.shape[1:3]
    indices = np.array(sorted(clicks))
    maps = np.stack([heat_map(clicks[index], height, width) for index in indices.tolist()])
    for stream in np.unique(frames.stream[indices]).tolist():
        mine = frames.stream[indices] == stream
        path = stage.out / f"{stream:03d}-00000.tar"
        write_saliency_shard(path, frames, indices[mine], maps[mine])
    written = {str(index): clicks[index].round(2).tolist() for index in indices.tolist()}
    write_atomic(stage.out / "clicks.json", (json.dumps(written, indent=1) + "\n").encode())
    overlays(frames, indices[:12], maps[:12]).save(stage.out / "overlay.png")
    counts = [len(clicks[index]) for index in indices.tolist()]
    return {"frames": len(indices), "clicks_per_frame": float(np.mean(counts))}


if __name__ == "__main__":
    main("annotate", "annotations", run)
