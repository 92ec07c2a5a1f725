"""Stage `annotate`: clicks on some frames -> maps. `python -m pipeline.annotate NAME`.

People click beforehand, in the browser: `make annotate`, which runs `pipeline.commands.clicks`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from datasets.annotation.choice import keys
from datasets.annotation.click_file import CLICKS
from datasets.annotation.maps import mean_map
from datasets.files import write_atomic
from datasets.pictures import spread
from datasets.saliency import write_saliency_shard
from datasets.shards import read_frames
from pipeline.config.tables import component
from pipeline.parts.overlays import PICTURES, overlays
from pipeline.runtime.stage import Stage, main


def run(stage: Stage) -> dict[str, Any]:
    """Get one entry's clicks from its annotators; write the clicks, their maps and a picture."""
    for path in stage.out.iterdir():  # left by an interrupted run
        path.unlink()
    annotator = component("datasets.annotation", stage.entry.keys.annotator)
    data = stage.inputs["frames"]
    frames, name = read_frames(data.folder, data.files), stage.entry.keys.frames
    env, count = data.manifest["entry"]["env"], stage.entry.keys.count
    clicks = annotator.annotate(stage.entry.config, env, frames, count, CLICKS / name)
    height, width = frames.images.shape[1:3]
    indices = np.array(sorted({index for points in clicks.values() for index in points}))
    by_frame = [[c[i] for c in clicks.values() if i in c] for i in indices.tolist()]
    maps = np.stack([mean_map(each, height, width, annotator.SPREAD) for each in by_frame])
    for stream in np.unique(frames.stream[indices]).tolist():
        mine = frames.stream[indices] == stream
        path = stage.out / f"{stream:03d}-00000.tar"
        write_saliency_shard(path, frames, indices[mine], maps[mine])
    if not annotator.STORED:
        key = keys(frames)
        content = {
            name: {key[index]: points[index].round(2).tolist() for index in sorted(points)}
            for name, points in clicks.items()
        }
        write_atomic(stage.out / "clicks.json", (json.dumps(content, indent=1) + "\n").encode())
    rows = spread(len(indices), PICTURES)
    overlays(frames, indices[rows], maps[rows]).save(stage.out / "overlay.png")
    return {
        "frames": len(indices),
        "simulated_clicks": stage.entry.keys.annotator == "simulated",
        "annotators": ", ".join(clicks),
        "clicks_per_frame": float(np.mean([len(one) for each in by_frame for one in each])),
    }


if __name__ == "__main__":
    main("annotate", "annotations", run)
