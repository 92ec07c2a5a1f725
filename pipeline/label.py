"""Stage `label`: frames + any source of saliency -> a map a frame. `python -m pipeline.label NAME`.

The artifact has the maps and, in `source/`, the complete source, which an encoder that needs one
copies from there. A policy's maps are its attention over the frames in time order, by the first
seed with weights. It has no `source/`: it is not a function of a frame (rl/watch.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from datasets.pictures import spread
from datasets.saliency import read_saliency, write_saliency_shard
from datasets.sealed import keep_if_sound
from datasets.shards import read_frames
from pipeline.parts.maps import to_bytes
from pipeline.parts.overlays import PICTURES, overlays
from pipeline.parts.sources import open_sources
from pipeline.runtime.artifact import Artifact
from pipeline.runtime.parallel import run_parallel
from pipeline.runtime.stage import Stage, main
from pretrain.frozen import CONFIG, WEIGHTS

SHARD = 1024  # maps in a shard, sealed as soon as they are computed


@dataclass(frozen=True)
class Label:
    """The maps of one stream."""

    by: Artifact
    frames: Artifact
    stream: int
    folder: Path
    gpu: ClassVar = True

    @property
    def reads(self) -> tuple[Path, ...]:
        """The source, and the stream's frames."""
        return self.by.folder, *self.frames.folder.glob(f"{self.stream:03d}-*.tar")

    @property
    def writes(self) -> tuple[Path, ...]:
        """The stream's shards."""
        return (self.folder / f"{self.stream:03d}-*",)

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Write the shards that are missing or damaged."""
        frames = read_frames(self.frames.folder, self.frames.files, self.stream)
        source = open_sources(self.by, frames)[0]
        for shard, begin in enumerate(range(0, len(frames), SHARD)):
            path = self.folder / f"{self.stream:03d}-{shard:05d}.tar"
            indices = np.arange(begin, min(begin + SHARD, len(frames)))
            if not keep_if_sound(path):
                maps = to_bytes(source.look(frames, indices))
                write_saliency_shard(path, frames, indices, maps)
            progress(len(indices))


def run(stage: Stage) -> dict[str, Any]:
    """Label every frame of one entry; an interrupted run goes on after its sealed shards."""
    data, by = stage.inputs["frames"], stage.inputs["by"]
    frames = read_frames(data.folder, data.files)
    source = open_sources(by, frames)[0]
    run_parallel(
        [Label(by, data, stream, stage.out) for stream in np.unique(frames.stream).tolist()],
        label=f"label {stage.entry.name}",
        total=len(frames),
        unit="frames",
    )
    if source.seed is None:
        (stage.out / "source").mkdir(exist_ok=True)
        for name in (CONFIG, WEIGHTS):
            # Content only: DVC's files are read-only, and a second attempt overwrites this copy.
            shutil.copyfile(by.folder / name, stage.out / "source" / name)
    maps = read_saliency(stage.out, frames)[1]
    sample = spread(len(frames), PICTURES)
    overlays(frames, sample, maps[sample]).save(stage.out / "overlay.png")
    seed = {} if source.seed is None else {"seed": source.seed}
    return {"frames": len(frames), "mean": float(maps.mean() / 255)} | seed


if __name__ == "__main__":
    main("label", "saliency", run)
