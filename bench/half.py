"""Training in bfloat16 beside training in float32: `python -m bench.half [EPOCHS]`.

Each encoder learns three times: in float32 with seeds 0 and 1, and with seed 0 where linear layers
multiply in bfloat16, as `trainer.fit` has them where the processor can; two seeds are the
yardstick. SPIRL's autoencoder learns from 5,000 frames of Frostbite, EPOCHS times each (10), and
beside the loss of the last epoch it is compared which patches of 256 other frames are selected.
MultiMAE learns from 1,024 frames of Drawer Open and their motion, three epochs in the manner of
the probes' recipe. It fails where a loss differs by more than LOSS or less than OVERLAP of the
patches are the same. Takes a quarter of an hour of one core and writes `artifacts/half.json`.
RESULTS.md quotes the file's copy in `bench/measured/`.

`python -m bench.half FLOAT32 BFLOAT16` compares two whole pretrainings: encoder artifacts of the
entry and the shards of `pipeline/recipes/weights/frostbite-mae`, the first by `python -m bench.half
NAME`, which is `pipeline.pretrain` in float32, the second as usual. The committed weights, float32
by another processor at an earlier commit, show how far two trainings in float32 may differ after
as many steps. WHOLE was chosen after that was measured.
"""

from __future__ import annotations

import csv
import json
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
from datasets.sealed import MANIFEST
from pipeline import pretrain
from pipeline.commands.pretrained import CURVE, KEPT, SHARDS, shards
from pipeline.runtime import stage
from pipeline.runtime.artifact import open_artifact
from pipeline.runtime.progress import Progress
from pretrain import trainer
from pretrain.encoders import mae, multimae
from pretrain.frozen import load_encoder
from pretrain.modules import linear
from pretrain.saliency import motion

RESULT = Path("artifacts/half.json")
FRAMES, JUDGED, EPOCHS = 5000, 256, 10
LOSS, OVERLAP = 0.005, 0.95  # of float32's loss, at most; of the patches that either selects
WHOLE = 0.9  # the same after a whole pretraining, where float32 by another processor keeps 0.93
SEEN = 1024
SMALL: dict[str, Any] = {
    "decoder_dim": 128, "decoder_depth": 1, "norm_rgb": False, "epochs": 3, "warmup_epochs": 1,
    "batch_size": 32, "base_lr": 1.6e-3,
}  # fmt: skip
RUNS = {"float32": (False, 0), "bfloat16": (True, 0), "float32, another seed": (False, 1)}


Columns = dict[str, NDArray[Any]]


def train(method: Any, columns: Columns, *, half: bool) -> float:
    """Train on columns of (N, ...) uint8; returns the loss of the last epoch."""
    config = method.config
    steps = trainer.total_steps(
        len(columns["image"]), batch_size=config.batch_size, epochs=config.epochs
    )
    progress = Progress(f"seed {config.seed}, {'bfloat16' if half else 'float32'}", steps, "steps")
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(linear, "has_bfloat16", lambda: half),
    ):
        losses = trainer.fit(
            method,
            columns,
            batch_size=config.batch_size,
            epochs=config.epochs,
            seed=config.seed,
            folder=Path(folder),
            progress=lambda done, _: progress.reach(done),
        )
    progress.finish()
    return float(np.mean(losses[-(steps // config.epochs) :]))


def _shape(columns: Columns) -> tuple[int, int, int]:
    height, width, channels = columns["image"].shape[1:]
    return channels, height, width


def overlap(one: list[set[int]], other: list[set[int]]) -> float:
    """The mean over frames of how much of what either selects both select."""
    return float(np.mean([len(a & b) / len(a | b) for a, b in zip(one, other, strict=True)]))


@torch.no_grad()
def selections(encoder: mae.Encoder, frames: Tensor) -> list[set[int]]:
    """The salient patches of each frame, however many."""
    return [set(encoder.salient(frame)) for frame in torch.split(frames, 1)]


def autoencoder(epochs: int) -> dict[str, Any]:
    """SPIRL's, on Frostbite."""
    frames = random_frames("atari/Frostbite", FRAMES + JUDGED)
    columns = {"image": frames[:FRAMES].permute(0, 2, 3, 1).numpy()}
    figures: dict[str, Any] = {"epochs": epochs, "frames": FRAMES, "judged": JUDGED}
    chosen = {}
    for name, (half, seed) in RUNS.items():
        begun = time.process_time()
        config = mae.Config(epochs=epochs, warmup_epochs=max(1, epochs // 10), seed=seed)
        method = mae.Pretraining(config, _shape(columns))
        loss = train(method, columns, half=half)
        minutes = (time.process_time() - begun) / 60
        chosen[name] = selections(method.encoder(), frames[FRAMES:])
        figures[name] = {
            "loss": loss,
            "minutes": minutes,
            "selected": float(np.mean([len(one) for one in chosen[name]])),
            "overlap_with_float32": overlap(chosen[name], chosen["float32"]),
        }
        print(name, figures[name], flush=True)
    return figures


def multimodal() -> dict[str, Any]:
    """ViSaRL's, on Drawer Open and its motion."""
    frames = random_frames("metaworld/drawer-open", SEEN)
    maps = motion.fit(motion.Config(), frames)(frames)[:, 0]
    columns = {"image": frames.permute(0, 2, 3, 1).numpy()}
    columns["saliency"] = (maps * 255).round().byte().numpy()
    figures: dict[str, Any] = {"epochs": SMALL["epochs"], "frames": SEEN}
    for name, (half, seed) in RUNS.items():
        begun = time.process_time()
        config = multimae.Config(**SMALL, seed=seed)
        loss = train(multimae.Pretraining(config, _shape(columns)), columns, half=half)
        figures[name] = {"loss": loss, "minutes": (time.process_time() - begun) / 60}
        print(name, figures[name], flush=True)
    return figures


@torch.no_grad()
def whole(float32: Path, bfloat16: Path) -> dict[str, Any]:
    """Two encoders that were pretrained here, and the kept one of the same entry and shards."""
    committed = KEPT / "frostbite-mae"
    wanted = json.loads((committed / MANIFEST).read_text())
    learned_from, epochs = json.loads((committed / SHARDS).read_text()), wanted["entry"]["epochs"]
    figures: dict[str, Any] = {"epochs": epochs, "frames": FRAMES, "judged": JUDGED}
    frames, chosen = random_frames("atari/Frostbite", FRAMES + JUDGED)[FRAMES:], {}
    folders = {"float32": float32, "bfloat16": bfloat16, "float32, another processor": committed}
    for name, folder in folders.items():
        manifest = json.loads((folder / MANIFEST).read_text())
        used = {label: shards(open_artifact(label)) for label in manifest["inputs"]}
        if manifest["entry"] != wanted["entry"] or used != learned_from:
            sys.exit(f"bench.half: {folder} has another entry or other shards than {committed}")
        encoder = load_encoder(folder)
        assert isinstance(encoder, mae.Encoder)
        chosen[name] = selections(encoder, frames)
        with (folder / CURVE).open() as lines:
            losses = [float(line["loss"]) for line in csv.DictReader(lines)]
        figures[name] = {
            "loss": float(np.mean(losses[-(len(losses) // epochs) :])),
            "selected": float(np.mean([len(one) for one in chosen[name]])),
            "overlap_with_float32": overlap(chosen[name], chosen["float32"]),
        }
        print(name, figures[name], flush=True)
    return figures


def main() -> None:
    """The command line."""
    if not (linear.is_faster() and linear.has_bfloat16()):
        sys.exit("bench.half: trainings here are in float32 anyway")
    torch.set_num_threads(1)
    arguments = sys.argv[1:] or [str(EPOCHS)]
    if len(arguments) == 2:
        result = {"whole": whole(*map(Path, arguments))}
    elif arguments[0].isdecimal():
        result = {"multimae": multimodal(), "half": autoencoder(int(arguments[0]))}
    else:
        with patch.object(linear, "has_bfloat16", lambda: False):
            stage.main("pretrain", "encoders", pretrain.run)
        return
    kept.keep(RESULT, result)
    if any(strays(figures) for figures in result.values()):
        sys.exit("bench.half: bfloat16 strays further from float32 than it may")


def strays(figures: dict[str, Any]) -> bool:
    """Whether bfloat16 is further from float32 than stated."""
    one, other = figures["bfloat16"], figures["float32"]
    near = abs(one["loss"] / other["loss"] - 1) <= LOSS
    least = OVERLAP if figures["epochs"] <= EPOCHS else WHOLE
    return not (near and one.get("overlap_with_float32", 1.0) >= least)


if __name__ == "__main__":
    main()
