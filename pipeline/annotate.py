"""Stage `annotate`: clicks on some frames -> maps. `python -m pipeline.annotate NAME`.

People make their clicks before, in the browser: `make annotate`, which is
`pipeline.commands.clicks`.
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
from pipeline.parts.overlays import PICTURED, overlays
from pipeline.runtime.stage import Stage, main


def run(stage: Stage) -> dict[str, Any]:
    """Take one entry's clicks from its annotators; keep the clicks, their maps and a picture."""
    for rest in stage.out.iterdir():  # of a run cut short
        rest.unlink()
    annotator = component("datasets.annotation", stage.entry.keys.annotator)
    data = stage.inputs["frames"]
    frames, name = read_frames(data.folder, data.files), stage.entry.keys.frames
    env, count = data.manifest["entry"]["env"], stage.entry.keys.count
    clicks = annotator.annotate(stage.entry.config, env, frames, count, CLICKS / name)
    height, width = frames.images.shape[1:3]
    indices = np.array(sorted({index for clicked in clicks.values() for index in clicked}))
    several = [[c[i] for c in clicks.values() if i in c] for i in indices.tolist()]
    maps = np.stack([mean_map(annotators, height, width) for annotators in several])
    for stream in np.unique(frames.stream[indices]).tolist():
        mine = frames.stream[indices] == stream
        path = stage.out / f"{stream:03d}-00000.tar"
        write_saliency_shard(path, frames, indices[mine], maps[mine])
    key = keys(frames)
    written = {
        who: {key[index]: clicked[index].round(2).tolist() for index in sorted(clicked)}
        for who, clicked in clicks.items()
    }
    write_atomic(stage.out / "clicks.json", (json.dumps(written, indent=1) + "\n").encode())
    picked = spread(len(indices), PICTURED)
    overlays(frames, indices[picked], maps[picked]).save(stage.out / "overlay.png")
    return {
        "frames": len(indices),
        "simulated_clicks": stage.entry.keys.annotator == "simulated",
        "annotators": ", ".join(clicks),
        "clicks_per_frame": float(np.mean([len(one) for each in several for one in each])),
    }


if __name__ == "__main__":
    main("annotate", "annotations", run)
