"""Stored frames, channels last, as images for networks, channels first."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def channels_first(frames: NDArray[Any] | Tensor) -> Tensor:
    """(..., H, W, C) -> (..., C, H, W), a view of the same memory."""
    return torch.as_tensor(frames).movedim(-1, -3)
