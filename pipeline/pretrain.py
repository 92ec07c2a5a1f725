"""Stage `pretrain`: frames or saliency -> a frozen encoder. `python -m pipeline.pretrain NAME`."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.files import write_atomic
from datasets.pictures import spread
from datasets.shards import FrameSet, read_frames
from pipeline.progress import Progress
from pipeline.stage import Stage, main
from pipeline.tables import word_module
from pretrain import figures
from pretrain.encoder import export, save_encoder

PICTURED = 4  # frames on the sheet of panels


def run(stage: Stage) -> dict[str, Any]:
    """Pretrain one entry's encoder, save it, export it, and picture what it sees."""
    module = word_module("pretrain.encoders", stage.entry.keys.model)
    data = stage.inputs["data"]
    frames = read_frames(data.folder, data.files)
    height, width, channels = frames.images.shape[1:]
    shape = (channels, height, width)
    features = module.Features(**stage.entry.features)
    metrics: dict[str, Any] = {"frames": len(frames)}
    if hasattr(module, "Pretraining"):
        method = module.Pretraining(stage.entry.config, shape)
        losses = _train(stage, method, frames)
        metrics |= {"steps": len(losses), "loss": float(losses[-100:].mean())}
        encoder = method.encoder(features)
    else:
        encoder = module.Encoder(stage.entry.config, features, shape)
    metrics["parameters"] = sum(p.numel() for p in encoder.parameters())
    save_encoder(encoder, stage.out)
    if module.KIND != "state":  # of which there is nothing to compute
        export(encoder, stage.out / "encoder.pt2")
    _picture(stage, module, encoder, frames)
    return metrics


def _train(stage: Stage, method: Any, frames: FrameSet) -> NDArray[np.float32]:
    """Fit, or go on from `last.ckpt`; keeps the loss of every step."""
    from pretrain import trainer  # Lightning takes seconds to import: only who trains waits for it

    config = stage.entry.config
    total = trainer.total_steps(len(frames), batch_size=config.batch_size, epochs=config.epochs)
    progress = Progress(f"pretrain {stage.entry.name}", total, "steps")
    losses = trainer.fit(
        method,
        {"image": frames.images},
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
        folder=stage.folder,
        progress=lambda done, _: progress.reach(done),
        tensorboard_dir=stage.runs,
    )
    progress.finish()
    rows = "".join(f"{step},{loss:.9g}\n" for step, loss in enumerate(losses.tolist(), 1))
    write_atomic(stage.out / "curve.csv", f"step,loss\n{rows}".encode())
    return losses


def _picture(stage: Stage, module: ModuleType, encoder: Any, frames: FrameSet) -> None:
    """The sheet of panels, for an encoder that can show what it sees."""
    if hasattr(module.Encoder, "panels"):
        picked = frames.images[spread(len(frames), PICTURED)]
        images = torch.from_numpy(picked).permute(0, 3, 1, 2).contiguous()  # (n, C, H, W)
        sheet = figures.grid([encoder.panels(image[None]) for image in images])
        sheet.save(stage.out / "panels.png")


if __name__ == "__main__":
    main("pretrain", "encoders", run)
