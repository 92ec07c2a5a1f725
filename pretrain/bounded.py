"""A header that anyone may have written describes no larger a component than its weights are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

FREE = 1 << 26  # numbers beside the weights: tables, positions
COPIES = 8  # of the weights: targets of an agent, parts not kept
MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


class Bounded(TorchFunctionMode):
    """Within it all tensors made hold about as many numbers as the file `weights` may.

    Raises ValueError before a tensor is made with which they hold more.
    """

    def __init__(self, weights: Path) -> None:
        self._weights = weights
        self._left = FREE + COPIES * weights.stat().st_size

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, unless it makes a tensor that is too large."""
        kwargs = kwargs or {}
        if func in MAKERS:
            first = kwargs["size"] if "size" in kwargs else args[0]
            size = args if isinstance(first, int) else first  # zeros(2, 3) or zeros((2, 3))
            self._left -= math.prod(size)
            if self._left < 0:
                raise ValueError(
                    f"its config describes more than {self._weights.name} holds; the two do not "
                    "belong together, build the artifact again"
                )
        return func(*args, **kwargs)
