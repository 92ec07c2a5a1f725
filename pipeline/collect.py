"""Stage `collect`: environment and source -> shards. `python -m pipeline.collect NAME`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.files import read_json
from datasets.pictures import contact_sheet
from datasets.shards import FrameSet, read_frames
from pipeline.config.tables import component
from pipeline.runtime.parallel import side_by_side
from pipeline.runtime.stage import Stage, main

SHEET_FRAMES, SHEET_COLUMNS = 48, 8


@dataclass(frozen=True)
class Collect:
    """One stream of frames, written by a process of its own."""

    stream: Any  # of the source's file: has run(folder, progress)
    folder: Path

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Write the stream's shards that aren't there yet."""
        self.stream.run(self.folder, progress)


def run(stage: Stage) -> dict[str, Any]:
    """Collect the frames of one entry; sealed shards survive an interruption."""
    keys = stage.entry.keys
    source = component("datasets.sources", keys.source)
    folder = stage.folder / "learner"
    learner = {"learner": folder} if source.ACTION_LOG else {}
    streams = source.streams(stage.entry.config, keys.env, keys.count, **learner)
    if learner:
        _learn(stage, folder, source.ACTION_LOG)
    side_by_side(
        [Collect(stream, stage.out) for stream in streams],
        label=f"collect {stage.entry.name}",
        total=keys.count,
        unit="frames",
    )
    frames = read_frames(stage.out)
    picked = range(0, len(frames), max(1, len(frames) // SHEET_FRAMES))[:SHEET_FRAMES]
    contact_sheet(frames.images[picked], SHEET_COLUMNS).save(stage.out / "contact_sheet.png")
    metrics = summary(frames) | {"bytes": sum(p.stat().st_size for p in stage.out.glob("*.tar"))}
    if learner:
        learner_metrics = read_json(folder / "metrics.json")
        metrics |= {f"learner_{key}": value for key, value in learner_metrics.items()}
    return metrics


def _learn(stage: Stage, folder: Path, name: str) -> None:
    """Have rl's agent learn the task, or go on with it; its actions go to the file `name`."""
    # Torch and rl take seconds to import; and by name, so that they are in the code stamps of the
    # entries that learn alone (pipeline/config/closure.py).
    learner = importlib.import_module("pipeline.parts.learner")
    keys, config = stage.entry.keys, stage.entry.config
    folder.mkdir(exist_ok=True)
    side_by_side(
        [learner.Learn(keys.env, config, folder, folder / name, stage.runs)],
        label=f"learn {keys.env} for {stage.entry.name}",
        total=config.steps,
        unit="steps",
    )


def summary(frames: FrameSet) -> dict[str, Any]:
    """Counts that a card shows: frames, ended episodes, mean reward a step, image shape."""
    return {
        "frames": len(frames),
        "games_ended": int((frames.terminated | frames.truncated).sum()),
        "reward_per_step": float(frames.reward.mean()),
        "image_shape": list(frames.images.shape[1:]),
    }


if __name__ == "__main__":
    main("collect", "frames", run)
