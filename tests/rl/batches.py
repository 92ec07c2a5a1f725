"""Batches of random frames, in the form of replay."""

from __future__ import annotations

from typing import Any

import torch

from pretrain.encoder import Obs
from rl.agent import Batch
from tests.rl import fakes


def random_batch(encoder: fakes.Fake, seed: int, config: Any = fakes.SMALL) -> Batch:
    """A batch for a discrete agent with three actions."""
    generator, size = torch.Generator().manual_seed(seed), config.batch_size

    def stacks() -> Obs:
        shape = (size * config.stack, 3, fakes.SIZE, fakes.SIZE)
        obs = encoder(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))
        return {key: value.view(size, config.stack, *value.shape[1:]) for key, value in obs.items()}

    return Batch(
        obs=stacks(),
        action=torch.randint(3, (size,), generator=generator),
        reward=torch.randn(size, generator=generator),
        discount=torch.rand(size, generator=generator),
        next_obs=stacks(),
        weight=torch.rand(size, generator=generator),
        index=torch.arange(size),
    )
