"""Products in bfloat16 where the processor has it, for training on-policy agents.

Weights, gradients, optimizers and all sums stay in float32 (autocast). Finished policies are
evaluated in float32, on any machine alike.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pretrain.modules.linear import has_bfloat16

Precision = Literal["auto", "float32"]


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """bfloat16 products from here on, if `precision` is "auto" and the device has them."""
    on_cpu = device.type == "cpu"
    has = has_bfloat16() if on_cpu else torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "auto" and has)


def scaled(image: Tensor) -> Tensor:
    """Bytes (B, C, H, W) to 0…1, channels last, in the precision that products have here.

    A third faster than `image.float() / 255`, which convolutions would then have to convert: few
    bytes are laid out anew instead of many floats.
    """
    kind = image.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    return image.contiguous(memory_format=torch.channels_last).to(dtype).div_(255)
