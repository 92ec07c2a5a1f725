"""Training with Lightning in a stage: progress, checkpoints and the curve."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.files import write_atomic
from pipeline.runtime.process import rank
from pipeline.runtime.progress import Progress
from pipeline.runtime.stage import Stage
from pretrain.transforms.pairs import Pairs


def train(
    stage: Stage,
    verb: str,
    method: Any,
    columns: dict[str, NDArray[Any]],
    *,
    clip_norm: float | None = None,
    pairs: Pairs | None = None,
) -> dict[str, float]:
    """Fit `method` to columns (N, ...), from its checkpoint if any; write the loss of every step.

    Returns steps and the mean of the last losses, for the metrics; only the first of torchrun's
    processes returns. `verb` is the progress's; with
    `pairs` the method also gets a second frame of each frame's episode.
    """
    from pretrain import trainer  # Lightning takes seconds to import, and only training needs it

    config = stage.entry.config
    count = len(columns["image"]) if pairs is None else len(pairs.targets)
    total = trainer.total_steps(count, batch_size=config.batch_size, epochs=config.epochs)
    first = not rank()  # of torchrun's processes
    progress = Progress(f"{verb} {stage.entry.name}", total, "steps") if first else None
    losses: NDArray[np.float32] = trainer.fit(
        method,
        columns,
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
        folder=stage.folder,
        progress=(lambda done, _: progress.reach(done)) if progress else None,
        tensorboard_dir=stage.runs,
        clip_norm=clip_norm,
        rows=None if pairs is None else pairs.targets,
        partners=None if pairs is None else pairs.sources,
    )
    if progress is None:
        sys.exit()  # the first process has the same weights, and publishes them
    progress.finish()
    rows = "".join(f"{step},{loss:.9g}\n" for step, loss in enumerate(losses.tolist(), 1))
    write_atomic(stage.out / "curve.csv", f"step,loss\n{rows}".encode())
    return {"steps": len(losses), "loss": float(losses[-100:].mean())}
