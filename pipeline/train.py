"""Stage `train`: a frozen encoder and an agent -> policies. `python -m pipeline.train NAME`.

Seeds train in parallel, each in its own process, and each is kept: raising `seeds` trains only the
new ones. The artifact is complete: the encoder is in it.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from datasets.files import read_json, write_atomic
from pipeline.config.tables import EVALUATION_KEYS, Entry
from pipeline.parts.policies import fresh_policy, import_parts, open_encoder, spec_of
from pipeline.runtime.parallel import run_parallel
from pipeline.runtime.stage import Stage, main
from rl import off_policy, on_policy
from rl.agent import Compilable, OnPolicyConfig
from rl.policy import Spec, save_policy
from rl.run import DONE, FAILED, DivergedError, is_done

COMPILE_FROM = 20_000  # updates, from which on compiling saves more time than it takes


@dataclass(frozen=True)
class TrainSeed:
    """The training of one seed, from its last checkpoint."""

    entry: Entry
    spec: Spec
    encoder: Path
    seed: int
    folder: Path  # the seed's
    logs: Path
    gpu: ClassVar = True

    @property
    def reads(self) -> tuple[Path, ...]:
        """The encoder."""
        return (self.encoder,)

    @property
    def writes(self) -> tuple[Path, ...]:
        """The seed's folder, and its log."""
        return self.folder, self.logs

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Train to the end, or until the seed diverges."""
        policy = fresh_policy(self.spec, open_encoder(self.entry, self.encoder), self.seed)
        config = self.spec.config
        train = on_policy.train if isinstance(config, OnPolicyConfig) else off_policy.train
        if (
            isinstance(policy.agent, Compilable)
            and config.steps >= COMPILE_FROM * config.update_every
        ):
            policy.agent.compile()
        every = self.entry.keys.checkpoint_every
        with suppress(DivergedError):  # recorded in FAILED; the other seeds go on
            train(
                policy,
                folder=self.folder,
                checkpoint_every=every,
                progress=progress,
                logs=self.logs,
            )
        cache = policy.encoder.cache
        if cache and cache.hits + cache.misses:
            counts = {"hits": cache.hits, "misses": cache.misses, "bytes": cache.nbytes}
            write_atomic(self.logs / "errors.json", (json.dumps(counts) + "\n").encode())


def run(stage: Stage) -> dict[str, Any]:
    """Train every seed of one entry that is not trained yet."""
    entry, encoder = stage.entry, stage.inputs["encoder"].folder
    spec, seeds = spec_of(entry), entry.keys.seeds
    folders = {seed: stage.folder / f"seed-{seed}" for seed in range(seeds)}
    waiting = {
        seed: folder for seed, folder in folders.items() if not is_done(folder, DONE, FAILED)
    }
    for folder in waiting.values():
        folder.mkdir(exist_ok=True)
    import_parts(spec, encoder)
    run_parallel(
        [
            TrainSeed(entry, spec, encoder, seed, folder, stage.runs / folder.name)
            for seed, folder in waiting.items()
        ],
        label=f"train {entry.name}, {len(waiting)} of {seeds} seeds",
        total=entry.config.steps * len(waiting),
        unit="steps",
    )
    shutil.rmtree(stage.out)
    save_policy(spec, open_encoder(entry, encoder), stage.out)
    for folder in folders.values():
        shutil.copytree(folder, stage.out / folder.name)
    failed = sum((folder / FAILED).exists() for folder in folders.values())
    if failed == seeds:  # a message and no error, so that other policies and the report go on
        error = read_json(folders[0] / FAILED)["error"]
        print(f"policies.{entry.name}: every seed failed; the first: {error}", file=sys.stderr)
    return {"seeds": seeds, "failed": failed, "steps": entry.config.steps}


if __name__ == "__main__":
    main("train", "policies", run, without=EVALUATION_KEYS, more_of=frozenset({"seeds"}))
