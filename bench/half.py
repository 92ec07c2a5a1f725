"""Training in bfloat16 against training in float32: `python -m bench.half [EPOCHS]`.

Each encoder is trained three times: in float32 with seeds 0 and 1, and with seed 0 where linear
layers multiply in bfloat16, as in `trainer.fit` on processors that can. The two seeds are the
yardstick. SPIRL's autoencoder is trained on 5,000 frames of Frostbite for EPOCHS epochs (10); the
loss of the last epoch is compared, and the selected patches of 256 other frames. MultiMAE is
trained on 1,024 frames of Drawer Open and their motion, for three epochs with settings close to the
probes' recipe. The benchmark fails if a loss differs by more than LOSS, or if less than OVERLAP of
the patches are the same. Takes a quarter of an hour of one core and writes `artifacts/half.json`.
RESULTS.md quotes the file's copy in `bench/measured/`.

`python -m bench.half FLOAT32 BFLOAT16` compares two whole pretrainings: encoder artifacts of the
entry and the shards of `pipeline/recipes/weights/frostbite-mae`. The first is made by `python -m
bench.half NAME`, which is `pipeline.pretrain` in float32, the second as usual. The committed
weights, trained in float32 on another processor at an earlier commit, show how much two trainings
in float32 may differ after as many steps. WHOLE_OVERLAP was chosen after that was measured.
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

from bench import results
from bench.error_map import random_frames
from datasets.sealed import MANIFEST
from pipeline import pretrain
from pipeline.commands.pretrained import COMMITTED_WEIGHTS, CURVE, SHARDS, shards
from pipeline.runtime import stage
from pipeline.runtime.artifact import open_artifact
from pipeline.runtime.progress import Progress
from pretrain import trainer
from pretrain.encoders import mae, multimae
from pretrain.frozen import load_encoder
from pretrain.modules import linear
from pretrain.saliency import motion

RESULT = Path("artifacts/half.json")
FRAMES, OTHER_FRAMES, EPOCHS = 5000, 256, 10
LOSS, OVERLAP = 0.005, 0.95  # of float32's loss, at most; of the patches that either selects
WHOLE_OVERLAP = 0.9  # after a whole pretraining; 0.93 for float32 on another processor
DRAWER_FRAMES = 1024
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
    """Patches that both select, as a share of those that either selects; the mean over frames."""
    return float(np.mean([len(a & b) / len(a | b) for a, b in zip(one, other, strict=True)]))


@torch.no_grad()
def selections(encoder: mae.Encoder, frames: Tensor) -> list[set[int]]:
    """All salient patches of each frame."""
    return [set(encoder.salient(frame)) for frame in torch.split(frames, 1)]


def autoencoder(epochs: int) -> dict[str, Any]:
    """SPIRL's, on Frostbite."""
    frames = random_frames("atari/Frostbite", FRAMES + OTHER_FRAMES)
    columns = {"image": frames[:FRAMES].permute(0, 2, 3, 1).numpy()}
    figures: dict[str, Any] = {"epochs": epochs, "frames": FRAMES, "judged": OTHER_FRAMES}
    chosen = {}
    for name, (half, seed) in RUNS.items():
        start = time.process_time()
        config = mae.Config(epochs=epochs, warmup_epochs=max(1, epochs // 10), seed=seed)
        method = mae.Pretraining(config, _shape(columns))
        loss = train(method, columns, half=half)
        minutes = (time.process_time() - start) / 60
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
    frames = random_frames("metaworld/drawer-open", DRAWER_FRAMES)
    maps = motion.fit(motion.Config(), frames)(frames)[:, 0]
    columns = {"image": frames.permute(0, 2, 3, 1).numpy()}
    columns["saliency"] = (maps * 255).round().byte().numpy()
    figures: dict[str, Any] = {"epochs": SMALL["epochs"], "frames": DRAWER_FRAMES}
    for name, (half, seed) in RUNS.items():
        start = time.process_time()
        config = multimae.Config(**SMALL, seed=seed)
        loss = train(multimae.Pretraining(config, _shape(columns)), columns, half=half)
        figures[name] = {"loss": loss, "minutes": (time.process_time() - start) / 60}
        print(name, figures[name], flush=True)
    return figures


@torch.no_grad()
def whole(float32: Path, bfloat16: Path) -> dict[str, Any]:
    """Two encoders that were pretrained here, and the committed one of the entry and shards."""
    committed = COMMITTED_WEIGHTS / "frostbite-mae"
    entry = json.loads((committed / MANIFEST).read_text())["entry"]
    digests, epochs = json.loads((committed / SHARDS).read_text()), entry["epochs"]
    figures: dict[str, Any] = {"epochs": epochs, "frames": FRAMES, "judged": OTHER_FRAMES}
    frames, chosen = random_frames("atari/Frostbite", FRAMES + OTHER_FRAMES)[FRAMES:], {}
    folders = {"float32": float32, "bfloat16": bfloat16, "float32, another processor": committed}
    for name, folder in folders.items():
        manifest = json.loads((folder / MANIFEST).read_text())
        used = {label: shards(open_artifact(label)) for label in manifest["inputs"]}
        if manifest["entry"] != entry or used != digests:
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
        sys.exit("bench.half: training on this machine is in float32 anyway")
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
    results.write(RESULT, result)
    if any(differs(figures) for figures in result.values()):
        sys.exit("bench.half: bfloat16 differs from float32 by more than the bounds")


def differs(figures: dict[str, Any]) -> bool:
    """Whether bfloat16 differs from float32 by more than the bounds."""
    one, other = figures["bfloat16"], figures["float32"]
    near = abs(one["loss"] / other["loss"] - 1) <= LOSS
    least = OVERLAP if figures["epochs"] <= EPOCHS else WHOLE_OVERLAP
    return not (near and one.get("overlap_with_float32", 1.0) >= least)


if __name__ == "__main__":
    main()
