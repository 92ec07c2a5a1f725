"""RMSProp as TensorFlow has it, which IMPALA and S3TA were trained with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class RMSprop(torch.optim.Optimizer):
    """θ ← θ - η g / √(s + ε), where s ← α s + (1 - α) g² begins at 1.

    torch's own has s at 0, so that its first steps are η/√(1 - α) however small the gradient; here
    they are about η g. It has ε beside the root, so that 0.01 acts on gradients below 0.01 instead
    of 0.1.
    """

    def __init__(
        self, parameters: Iterable[Tensor], *, learning_rate: float, decay: float, epsilon: float
    ) -> None:
        super().__init__(parameters, {"lr": learning_rate, "decay": decay, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # there is no closure
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            trained = [each for each in group["params"] if each.grad is not None]
            if not trained:
                continue
            gradients = [each.grad for each in trained]
            squares = [self._square(each) for each in trained]
            torch._foreach_mul_(squares, group["decay"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["decay"])
            roots = torch._foreach_add(squares, group["epsilon"])
            torch._foreach_sqrt_(roots)
            torch._foreach_addcdiv_(trained, gradients, roots, -group["lr"])

    def _square(self, parameter: Tensor) -> Tensor:
        """The running mean of a parameter's squared gradient."""
        state = self.state[parameter]
        if not state:
            state["square"] = torch.ones_like(parameter)
        square: Tensor = state["square"]
        return square
