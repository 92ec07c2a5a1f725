"""A small training in its own process, for tests that kill it or split it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from pretrain import trainer
from pretrain.encoders import mae
from pretrain.frozen import save_encoder


def main(folder: Path, environment: dict[str, str]) -> None:
    """Train, adding a byte to `steps` after each step; then write the encoder and the losses."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    config = mae.Config(
        patch=8, dim=16, decoder_dim=16, depth=1, decoder_depth=1, batch_size=8, epochs=25
    )
    images = np.random.default_rng(0).integers(0, 256, (48, 48, 48, 3), np.uint8)

    def progress(step: int, steps: int) -> None:
        with (folder / "steps").open("ab") as log:
            log.write(b".")

    method = mae.Pretraining(config, (3, 48, 48))
    losses = trainer.fit(
        method,
        {"image": images},
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=0,
        folder=folder,
        checkpoint_every=7,
        progress=progress,
    )
    if os.environ.get("RANK", "0") == "0":
        save_encoder(method.encoder(), folder)
        np.save(folder / "losses.npy", losses)
