"""Parts of training that methods share: noise by the step, learning rates, AdamW."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_NOISE = 1  # the stream of a seed's noise; the order of its data is stream 0


def noise(seed: int, step: int) -> np.random.Generator:
    """The generator of one step's random numbers, the same in every process and every run."""
    return np.random.default_rng([seed, _NOISE, step])


def half_cosine(step: int, *, steps: int, warmup: float) -> float:
    """The learning rate's factor: from 0 to 1 over `warmup` steps, then half a cosine to 0."""
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + float(np.cos(np.pi * (step - warmup) / max(1.0, steps - warmup))))


def adamw(
    module: torch.nn.Module, *, rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW without weight decay of biases and norms, the parameters of one dimension."""
    parameters: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=rate,
        betas=betas,
        fused=True,
    )
