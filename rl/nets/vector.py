"""Features that are ready: a frame's mean token, or the environment's state; nothing is trained.

As ViSaRL gives MultiMAE's features to its agent (released code): the mean over all tokens, 256
numbers, straight into actor and critics, without a projection. A pooled encoder's one token is its
own mean. Padding does not count. Frames of a stack are put one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pretrain.encoder import Obs
from rl.net import Net as BaseNet


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


class Net(BaseNet):
    """x (B, S, N, D) and mask, or state (B, S, K), to (B, S·D) or (B, S·K)."""

    averages = True

    def __init__(self, config: Config, example: Obs, stack: int) -> None:
        super().__init__()
        self.width = stack * example["state" if "state" in example else "x"].shape[-1]

    def forward(self, stack: Obs) -> tuple[Tensor, dict[str, Tensor]]:
        """No extras: every token counts alike."""
        if "state" in stack:
            return stack["state"].flatten(1), {}
        real = stack["mask"][..., None]
        mean = (stack["x"] * real).sum(2) / real.sum(2).clamp_min(1)
        return mean.flatten(1), {}
