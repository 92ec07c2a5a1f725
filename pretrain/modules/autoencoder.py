"""Parts that masked autoencoders share beside their networks: rules for settings, and a schedule.

A `config` is the `Config` of a file of `encoders/` that has mae.py's keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from pretrain.schedule import adamw, half_cosine


def rules(config: Any) -> Iterator[str]:
    """Mistakes in settings that are each in their range."""
    for dim, heads in (("dim", "heads"), ("decoder_dim", "decoder_heads")):
        width, parts = getattr(config, dim), getattr(config, heads)
        if width % 4 or width % parts:  # sines and cosines of rows and columns; equal heads
            yield f"{dim}: {width}, must be divisible by 4 and by {heads} {parts}"
    if not 0 < config.mask < 1:
        yield f"mask: {config.mask}, must be above 0 and below 1"
    for name, beta in (("beta1", config.beta1), ("beta2", config.beta2)):
        if beta == 1:
            yield f"{name}: {beta}, must be below 1"


def optimizer(
    module: nn.Module, config: Any, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW with a linear warm-up and half a cosine; the rate is set before each of `steps`."""
    optimizer = adamw(
        module,
        rate=config.base_lr * config.batch_size / 256,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
    )
    warmup = steps * min(1, config.warmup_epochs / config.epochs)
    factor = partial(half_cosine, steps=steps, warmup=warmup)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
