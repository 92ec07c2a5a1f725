"""Features used directly: a frame's pooled token, or the environment's state. No parameters.

So ViSaRL's agent uses MultiMAE's features (released code): the mean over all tokens, a vector of
256, goes to actor and critics without a projection. The encoder's `pool` says which token it is.
Frames of a stack are concatenated.
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
    """No settings."""


class Net(BaseNet):
    """x (B, S, 1, D), or state (B, S, K), -> (B, S·D) or (B, S·K)."""

    def __init__(self, config: Config, example: Obs, stack: int) -> None:
        super().__init__()
        self.key = "state" if "state" in example else "x"
        self.width = stack * example[self.key][0].numel()

    def forward(self, stack: Obs) -> tuple[Tensor, Extras]:
        """No extras: there is no attention."""
        return stack[self.key].flatten(1), {}
