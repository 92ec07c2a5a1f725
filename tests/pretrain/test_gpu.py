"""Properties that need a GPU: mixed precision in training, exact float32 in the frozen encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain import trainer
from pretrain.encoders import mae
from pretrain.frozen import load_encoder, save_encoder

pytestmark = pytest.mark.gpu


def test_training_on_a_gpu_follows_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = mae.Config(patch=16, epochs=4, batch_size=32)
    images = np.random.default_rng(0).integers(0, 256, (128, 96, 96, 3), np.uint8)
    losses = []
    for place in ("gpu", "cpu"):
        if place == "cpu":
            monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        (tmp_path / place).mkdir()
        method = mae.Pretraining(config, (3, 96, 96))
        losses.append(
            trainer.fit(
                method,
                {"image": images},
                batch_size=32,
                epochs=4,
                seed=0,
                folder=tmp_path / place,
            )
        )
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)


def test_tokens_on_a_gpu_are_the_cpus(tmp_path: Path) -> None:
    save_encoder(mae.Pretraining(mae.Config(), (3, 96, 96)).encoder(), tmp_path)
    image = torch.randint(0, 256, (4, 3, 96, 96), dtype=torch.uint8)
    own = load_encoder(tmp_path)(image)
    other = load_encoder(tmp_path, device="cuda")(image.cuda())
    assert torch.equal(own["pos"], other["pos"].cpu())
    torch.testing.assert_close(own["x"], other["x"].cpu(), atol=1e-4, rtol=1e-4)
