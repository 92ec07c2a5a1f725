"""Stage `train`: a frozen encoder and an agent -> policies. `python -m pipeline.train NAME`.

Seeds train side by side and are kept one by one: raising `seeds` trains only the new ones.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.errors import FoveaError
from datasets.files import write_atomic
from pipeline.parallel import side_by_side
from pipeline.policies import open_policy
from pipeline.stage import Stage, main
from pipeline.tables import EVALUATION_KEYS, Entry
from rl import loops

DONE = ("metrics.json", "failed.json")  # either of them ends a seed's work


@dataclass(frozen=True)
class TrainSeed:
    """One seed's training, in a process of its own; picks up its last checkpoint."""

    entry: Entry
    encoder: Path
    seed: int
    folder: Path
    logs: Path

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Train to the end, or leave `failed.json` where the loss is no number any more."""
        policy = open_policy(self.entry, self.encoder, seed=self.seed)
        try:
            loops.train(
                policy,
                folder=self.folder,
                checkpoint_every=self.entry.keys.checkpoint_every,
                progress=progress,
                logs=self.logs,
            )
        except loops.DivergedError as error:
            failed = {"error": str(error), "step": error.step}
            write_atomic(self.folder / "failed.json", (json.dumps(failed) + "\n").encode())
        memory = getattr(policy.encoder, "memory", None)  # how often it helped, since the start
        if memory and memory.misses:
            found = {"hits": memory.hits, "misses": memory.misses, "bytes": memory.nbytes}
            write_atomic(self.logs / "errors.json", (json.dumps(found) + "\n").encode())


def run(stage: Stage) -> dict[str, Any]:
    """Train every seed of one entry that is not trained yet."""
    keys, encoder = stage.entry.keys, stage.inputs["encoder"].folder
    folders = {seed: stage.folder / f"seed-{seed}" for seed in range(keys.seeds)}
    waiting = [seed for seed, folder in folders.items() if not _done(folder)]
    for seed in waiting:
        folders[seed].mkdir(exist_ok=True)
    side_by_side(
        [
            TrainSeed(stage.entry, encoder, seed, folders[seed], stage.runs / f"seed-{seed}")
            for seed in waiting
        ],
        label=f"train {stage.entry.name}, {len(waiting)} of {keys.seeds} seeds",
        total=stage.entry.config.steps * len(waiting),
        unit="steps",
    )
    shutil.rmtree(stage.out)
    for folder in folders.values():
        shutil.copytree(folder, stage.out / folder.name)
    failed = sum((folder / "failed.json").exists() for folder in folders.values())
    if failed == keys.seeds:
        error = json.loads((folders[0] / "failed.json").read_text())["error"]
        raise FoveaError(f"policies.{stage.entry.name}: every seed failed; the first: {error}")
    return {"seeds": keys.seeds, "failed": failed, "steps": stage.entry.config.steps}


def _done(folder: Path) -> bool:
    return any((folder / name).exists() for name in DONE)


if __name__ == "__main__":
    main("train", "policies", run, without=EVALUATION_KEYS, more_of=frozenset({"seeds"}))
