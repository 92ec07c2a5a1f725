"""Stage `collect`: environment and source -> shards. `python -m pipeline.collect NAME`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from datasets.files import read_json
from datasets.pictures import contact_sheet
from datasets.shards import FrameSet, read_frames
from pipeline.config.tables import component
from pipeline.runtime.parallel import run_parallel
from pipeline.runtime.stage import Stage, main

SHEET_FRAMES, SHEET_COLUMNS = 48, 8


@dataclass(frozen=True)
class Collect:
    """One stream of frames, written by its own process."""

    stream: Any  # of the source's file: has run(folder, progress) and its `index`
    folder: Path
    reads: tuple[Path, ...] = ()  # what a learner wrote
    gpu: ClassVar = False

    @property
    def writes(self) -> tuple[Path, ...]:
        """The stream's shards."""
        return (self.folder / f"{self.stream.index:03d}-*",)

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Write the stream's shards that are missing or damaged."""
        self.stream.run(self.folder, progress)


def run(stage: Stage) -> dict[str, Any]:
    """Collect the frames of one entry; an interrupted run goes on after its sealed shards."""
    keys = stage.entry.keys
    source = component("datasets.sources", keys.source)
    folder = stage.folder / "learner"
    learner = {"learner": folder} if source.ACTION_LOG else {}
    streams = source.streams(stage.entry.config, keys.env, keys.count, **learner)
    if learner:
        _learn(stage, folder, source.ACTION_LOG)
    run_parallel(
        [Collect(stream, stage.out, (folder,) if learner else ()) for stream in streams],
        label=f"collect {stage.entry.name}",
        total=keys.count,
        unit="frames",
        here=source.FRAME_INFO is not None,  # recordings, which are on this machine
    )
    frames = read_frames(stage.out)
    rows = range(0, len(frames), max(1, len(frames) // SHEET_FRAMES))[:SHEET_FRAMES]
    contact_sheet(frames.images[rows], SHEET_COLUMNS).save(stage.out / "contact_sheet.png")
    metrics = summary(frames) | {"bytes": sum(p.stat().st_size for p in stage.out.glob("*.tar"))}
    if learner:
        learner_metrics = read_json(folder / "metrics.json")
        metrics |= {f"learner_{key}": value for key, value in learner_metrics.items()}
    return metrics


def _learn(stage: Stage, folder: Path, name: str) -> None:
    """Train rl's agent on the task, or go on with it; it writes its actions to the file `name`."""
    # Imported here, since torch and rl take seconds; and by name, so that they are in the code
    # stamps of those entries only that have a learner (pipeline/config/closure.py).
    learner = importlib.import_module("pipeline.parts.learner")
    keys, config = stage.entry.keys, stage.entry.config
    folder.mkdir(exist_ok=True)
    run_parallel(
        [learner.Learn(keys.env, config, folder, folder / name, stage.runs)],
        label=f"learn {keys.env} for {stage.entry.name}",
        total=config.steps,
        unit="steps",
    )


def summary(frames: FrameSet) -> dict[str, Any]:
    """The artifact's metrics: frames, ended episodes, mean reward a step, image shape."""
    return {
        "frames": len(frames),
        "games_ended": int((frames.terminated | frames.truncated).sum()),
        "reward_per_step": float(frames.reward.mean()),
        "image_shape": list(frames.images.shape[1:]),
    }


if __name__ == "__main__":
    main("collect", "frames", run)
