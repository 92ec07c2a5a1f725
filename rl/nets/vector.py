"""Features that are ready: a frame's one token, or the environment's state; nothing is trained.

As ViSaRL gives MultiMAE's features to its agent (released code): the mean over all tokens, 256
numbers, straight into actor and critics, without a projection. Which token that is, the encoder
says (`pool`). Frames of a stack are put one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from datasets.checked import Checked
from pretrain.encoder import Obs
from rl.net import Extras
from rl.net import Net as BaseNet

KINDS = ("vector", "state")  # of features that it takes


@dataclass(frozen=True)
class Config(Checked):
    """Nothing to set."""


class Net(BaseNet):
    """x (B, S, 1, D), or state (B, S, K), to (B, S·D) or (B, S·K)."""

    def __init__(self, config: Config, example: Obs, stack: int) -> None:
        super().__init__()
        self.key = "state" if "state" in example else "x"
        self.width = stack * example[self.key][0].numel()

    def forward(self, stack: Obs) -> tuple[Tensor, Extras]:
        """No extras: nothing is weighed."""
        return stack[self.key].flatten(1), {}
