"""The environment's own state in place of an image: what a policy reaches that need not see.

Nothing is trained. ViSaRL's frames come from the replay of such a policy (sec. II-C), and what it
reaches bounds what a policy of images can. The environment is then not even drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pretrain.encoder import Obs

KIND = "state"  # of its features: which nets take them


@dataclass(frozen=True)
class Config:
    """How many numbers a state has; Meta-World's have 39."""

    size: int = 39

    def __post_init__(self) -> None:
        """Raise ValueError for what no state can be."""
        if self.size < 1:
            raise ValueError(f"size: {self.size}, must be at least 1")


@dataclass(frozen=True)
class Features:
    """Nothing to set."""


class Encoder(nn.Module):
    """(B, size) numbers -> {"state": the same, float32}."""

    info = "state"  # the entry of an environment's info that it gets, not the image
    max_tokens = 0
    dim = 0

    def __init__(
        self, config: Config, features: Features, image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.config, self.features, self.image_shape = config, features, image_shape
        self.size = config.size

    def forward(self, state: Tensor) -> Obs:
        """State obs, a copy. Raises ValueError for states of another length."""
        if state.ndim != 2 or state.shape[1] != self.size:
            raise ValueError(f"state: wants (B, {self.size}), is {tuple(state.shape)}")
        return {"state": state.to(torch.float32, copy=True)}
