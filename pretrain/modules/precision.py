"""bfloat16 products for training, where the processor or GPU has them.

Weights, gradients, optimizers and all sums stay in float32 (autocast). Acting and labelling are in
float32 on any machine.
"""

from __future__ import annotations

from typing import Literal

import torch

from pretrain.modules.linear import has_bfloat16

Precision = Literal["auto", "float32"]


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A context of bfloat16 products, if `precision` is "auto" and the device has them."""
    on_cpu = device.type == "cpu"
    has = has_bfloat16() if on_cpu else torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "auto" and has)
