"""What the masked autoencoders share beside their networks: checked settings and a schedule.

A `Config` here is that of a file of `encoders/` which has mae.py's keys.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from pretrain.schedule import adamw, half_cosine


def check(config: Any) -> None:
    """Raise ValueError for a Config that no network can be built of, or trained by."""
    sizes = ("patch", "dim", "depth", "heads", "decoder_dim", "decoder_depth")
    for field in (*sizes, "decoder_heads", "epochs", "batch_size"):
        if getattr(config, field) < 1:
            raise ValueError(f"{field}: {getattr(config, field)}, must be at least 1")
    for dim, heads in (("dim", "heads"), ("decoder_dim", "decoder_heads")):
        if getattr(config, dim) % 4 or getattr(config, dim) % getattr(config, heads):
            raise ValueError(f"{dim}: {getattr(config, dim)}, must divide by 4 and by {heads}")
    if not 0 < config.mask < 1:
        raise ValueError(f"mask: {config.mask}, must lie between 0 and 1")
    for field in ("base_lr", "warmup_epochs", "weight_decay", "seed"):
        if getattr(config, field) < 0:
            raise ValueError(f"{field}: {getattr(config, field)}, must not be negative")
    for field in ("beta1", "beta2"):
        if not 0 <= getattr(config, field) < 1:
            raise ValueError(f"{field}: {getattr(config, field)}, must be in [0, 1)")


def optimizer(
    module: nn.Module, config: Any, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW under a linear warm-up and half a cosine, set anew every one of `steps`."""
    found = adamw(
        module,
        rate=config.base_lr * config.batch_size / 256,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
    )
    warmup = steps * min(1, config.warmup_epochs / config.epochs)
    factor = partial(half_cosine, steps=steps, warmup=warmup)
    return found, torch.optim.lr_scheduler.LambdaLR(found, factor)
