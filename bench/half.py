"""What a training in bfloat16 comes to beside one in float32: `python -m bench.half [EPOCHS]`.

SPIRL's autoencoder learns from 5,000 frames of Frostbite three times: in float32 with seeds 0 and
1, and with seed 0 where linear layers multiply in bfloat16, as `trainer.fit` has them where the
processor can. Compared are the loss of the last epoch and which patches of 256 other frames are
selected, with the two seeds as a yardstick; it fails where the loss differs by more than LOSS or
less than OVERLAP of the patches are the same. Takes a quarter of an hour of one core at the 10
epochs that it asks for by itself, and writes `artifacts/half.json`. RESULTS.md quotes the file's
copy in `bench/measured/`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import kept
from bench.error_map import random_frames
from pipeline.progress import Progress
from pretrain import linear, trainer
from pretrain.encoders.mae import Config, Encoder, Pretraining

RESULT = Path("artifacts/half.json")
FRAMES, JUDGED, EPOCHS = 5000, 256, 10
LOSS, OVERLAP = 0.005, 0.95  # of float32's loss, at most; of the patches that either selects
RUNS = {"float32": (False, 0), "bfloat16": (True, 0), "float32, another seed": (False, 1)}


def train(config: Config, frames: Tensor, *, half: bool) -> tuple[Encoder, float]:
    """The autoencoder trained on frames (N, C, H, W) uint8, and the loss of its last epoch."""
    image: NDArray[Any] = frames.permute(0, 2, 3, 1).numpy()
    method = Pretraining(config, (image.shape[3], image.shape[1], image.shape[2]))
    steps = trainer.total_steps(len(image), batch_size=config.batch_size, epochs=config.epochs)
    progress = Progress(f"seed {config.seed}, {'bfloat16' if half else 'float32'}", steps, "steps")
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(linear, "has_bfloat16", lambda: half),
    ):
        losses = trainer.fit(
            method,
            {"image": image},
            batch_size=config.batch_size,
            epochs=config.epochs,
            seed=config.seed,
            folder=Path(folder),
            progress=lambda done, _: progress.reach(done),
        )
    progress.finish()
    return method.encoder(), float(np.mean(losses[-(steps // config.epochs) :]))


def overlap(one: list[set[int]], other: list[set[int]]) -> float:
    """The mean over frames of how much of what either selects both select."""
    return float(np.mean([len(a & b) / len(a | b) for a, b in zip(one, other, strict=True)]))


@torch.no_grad()
def selections(encoder: Encoder, frames: Tensor) -> list[set[int]]:
    """The salient patches of each frame, however many."""
    return [set(encoder.salient(frame)) for frame in torch.split(frames, 1)]


def main() -> None:
    """The command line."""
    if not (linear.is_faster() and linear.has_bfloat16()):
        sys.exit("bench.half: trainings here are in float32 anyway")
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else EPOCHS
    torch.set_num_threads(1)
    frames = random_frames("atari/Frostbite", FRAMES + JUDGED)
    figures: dict[str, Any] = {"epochs": epochs, "frames": FRAMES, "judged": JUDGED}
    chosen = {}
    for name, (half, seed) in RUNS.items():
        begun = time.process_time()
        config = Config(epochs=epochs, warmup_epochs=max(1, epochs // 10), seed=seed)
        encoder, loss = train(config, frames[:FRAMES], half=half)
        minutes = (time.process_time() - begun) / 60
        chosen[name] = selections(encoder, frames[FRAMES:])
        figures[name] = {
            "loss": loss,
            "minutes": minutes,
            "selected": float(np.mean([len(one) for one in chosen[name]])),
            "overlap_with_float32": overlap(chosen[name], chosen["float32"]),
        }
        print(name, figures[name], flush=True)
    kept.keep(RESULT, {"half": figures})
    one, other = figures["bfloat16"], figures["float32"]
    beyond = abs(one["loss"] / other["loss"] - 1) > LOSS
    if beyond or one["overlap_with_float32"] < OVERLAP:
        sys.exit("bench.half: bfloat16 strays further from float32 than it may")


if __name__ == "__main__":
    main()
