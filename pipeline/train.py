"""Stage `train`: a frozen encoder and an agent -> policies. `python -m pipeline.train NAME`.

Seeds train side by side, on a GPU as one where the agent can, and are kept one by one: raising
`seeds` trains only the new ones.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets.files import write_atomic
from pipeline.config.tables import EVALUATION_KEYS, Entry
from pipeline.parts.policies import import_parts, open_policy
from pipeline.runtime.parallel import side_by_side
from pipeline.runtime.stage import Stage, main
from rl import agents, loops
from rl.agent import Compilable
from rl.run import Seed

COMPILED = 20_000  # updates from which on compiling them takes less time than it saves
DONE = ("metrics.json", "failed.json")  # either of them ends a seed's work


@dataclass(frozen=True)
class TrainSeeds:
    """The training of one seed, or of several as one; picks up their last checkpoints."""

    entry: Entry
    encoder: Path
    folders: dict[int, Path]  # of each seed, for what is kept
    runs: Path  # for logs

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Train to the end, or to where a number that a seed lives on is none any more."""
        seeds = [self._seed(number, folder) for number, folder in self.folders.items()]
        every = self.entry.keys.checkpoint_every
        loops.train_together(seeds, checkpoint_every=every, progress=progress)
        for seed in seeds:
            cache = seed.policy.encoder.cache  # how often it helped
            if cache and cache.hits + cache.misses:
                found = {"hits": cache.hits, "misses": cache.misses, "bytes": cache.nbytes}
                path = self._logs(seed.policy.seed) / "errors.json"
                write_atomic(path, (json.dumps(found) + "\n").encode())

    def _seed(self, number: int, folder: Path) -> Seed:
        policy = open_policy(self.entry, self.encoder, seed=number)
        updates = policy.agent.config.steps // policy.agent.config.update_every
        if updates >= COMPILED and isinstance(policy.agent, Compilable):
            policy.agent.compile()
        return Seed(policy, folder, self._logs(number))

    def _logs(self, seed: int) -> Path:
        return self.runs / f"seed-{seed}"


def run(stage: Stage) -> dict[str, Any]:
    """Train every seed of one entry that is not trained yet."""
    keys, encoder = stage.entry.keys, stage.inputs["encoder"].folder
    folders = {seed: stage.folder / f"seed-{seed}" for seed in range(keys.seeds)}
    waiting = {seed: folder for seed, folder in folders.items() if not _done(folder)}
    for folder in waiting.values():
        folder.mkdir(exist_ok=True)
    as_one = torch.cuda.is_available() and agents.stackable(keys.agent)
    groups = [waiting] if as_one else [{seed: folder} for seed, folder in waiting.items()]
    import_parts(stage.entry, encoder)
    side_by_side(
        [TrainSeeds(stage.entry, encoder, group, stage.runs) for group in groups],
        label=f"train {stage.entry.name}, {len(waiting)} of {keys.seeds} seeds",
        total=stage.entry.config.steps * len(waiting),
        unit="steps",
    )
    shutil.rmtree(stage.out)
    for folder in folders.values():
        shutil.rmtree(folder / "resume", ignore_errors=True)  # of one killed as it ended
        shutil.copytree(folder, stage.out / folder.name)
    failed = sum((folder / "failed.json").exists() for folder in folders.values())
    if failed == keys.seeds:  # said, and no error: other policies and the ledger have to go on
        error = json.loads((folders[0] / "failed.json").read_text())["error"]
        print(
            f"policies.{stage.entry.name}: every seed failed; the first: {error}", file=sys.stderr
        )
    return {"seeds": keys.seeds, "failed": failed, "steps": stage.entry.config.steps}


def _done(folder: Path) -> bool:
    return any((folder / name).exists() for name in DONE)


if __name__ == "__main__":
    main("train", "policies", run, without=EVALUATION_KEYS, more_of=frozenset({"seeds"}))
