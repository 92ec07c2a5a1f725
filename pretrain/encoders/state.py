"""The environment's own state in place of an image: an upper bound for policies of images.

Nothing is pretrained. ViSaRL's frames come from the replay of such a policy (sec. II-C). The
environment is not rendered for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.checked import Width
from pretrain import encoder
from pretrain.encoder import Kind, Obs, Shape


@dataclass(frozen=True)
class Config(encoder.EncoderConfig):
    """The length of a state; Meta-World's is 39."""

    size: Width = 39


@dataclass(frozen=True)
class Features(encoder.EncoderFeatures):
    """No settings."""

    @property
    def kind(self) -> Kind:
        """The environment's state."""
        return "state"


class Encoder(encoder.Encoder):
    """(B, size) numbers -> {"state": the same, float32}."""

    info = "state"  # the entry of an environment's info that is its input
    any_image = True

    def __init__(self, config: Config, features: Features, image_shape: Shape | None) -> None:
        super().__init__(config, features, image_shape)
        self.size = config.size

    def blank(self, image_shape: Shape | None = None) -> Tensor:
        """An all-zero state."""
        return torch.zeros(1, self.size)

    def forward(self, state: Tensor) -> Obs:
        """State obs, a copy. Raises ValueError for states of another length."""
        if state.ndim != 2 or state.shape[1] != self.size:
            raise ValueError(f"state: must be (B, {self.size}), is {tuple(state.shape)}")
        return {"state": state.to(torch.float32, copy=True)}
