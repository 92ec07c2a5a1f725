"""Networks below an agent's heads: a Net takes a stack of frames, a Core a sequence of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.encoder import Obs
from pretrain.modules.precision import Precision

State = dict[str, Tensor]
"""A core's memory from frame to frame, every key (B, ...)."""

Extras = dict[str, Tensor]
"""A network's outputs beside its features: "attention", (..., heads, N) over N tokens, or K maps
(..., K, h, w) over the image.
"""


class Auxiliary:
    """A network's own loss beside the agent's, which the loop minimises. This one is empty."""

    def update(self, obs: Obs, first: Tensor) -> dict[str, Tensor]:
        """Learn from a rollout's frames, every key (T, B, ...), `first` (T, B); device scalars."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on, beside the network."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, bit for bit."""


class Trunk(nn.Module):
    """What nets and cores may offer, each with the default of one that does not.

    Attributes:
        width: of the vector that it gives.
        attends: whether its extras have "attention".
        masks: parts of it whose output is multiplied onto features.
        has_auxiliary: whether it has a loss of its own.
        threshold: the share of a map's maximum below which weights of attention are 0; None of a
            net without such weights. Training has 0, and an evaluation may set it.
    """

    width: int
    attends: bool = False
    masks: tuple[nn.Module, ...] = ()
    has_auxiliary: bool = False
    threshold: float | None = None

    def auxiliary(self, precision: Precision, seed: int) -> Auxiliary:
        """Its own loss."""
        return Auxiliary()

    def on_image(self, attention: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps of the extra "attention" (B, K, h, w) as one of the image, (B, H, W) in [0, 1].

        By default their mean as it is, each cell over its share of the image.
        """
        return F.interpolate(attention.mean(1, keepdim=True), size=size, mode="nearest")[:, 0]

    def uniform(self, extras: Extras) -> Extras:
        """The extra "attention" if it were the same everywhere, in the shape of these extras.

        The map of it is a control: where layers overlap, even this one is not constant.
        """
        return {"attention": torch.ones_like(extras["attention"])}


class Net(Trunk):
    """Stacked features -> one vector of length `width`; no state."""

    faster_compiled = False  # whether compiling makes an update on a CPU faster
    lstm_units: int = 0  # of an LSTM above it; 0 is none

    def forward(self, stack: Obs) -> tuple[Tensor, Extras]:
        """Every key (B, S, ...) -> features (B, width) and extras of the newest frame."""
        raise NotImplementedError


class Core(Trunk):
    """Features of T frames of B environments, in time order -> T x B vectors of length `width`.

    `rl.stack.FrameStack` makes a Core of any Net; a net with a memory of its own is a Core, made of
    its Config, an example of its features and the number of actions. T steps
    at once give the same result as the steps one by one, for any T. A test checks that for every
    core.
    """

    reads: tuple[str, ...] = ()  # of "action", "reward": which of the last step are in its obs

    def initial(self, batch: int) -> State:
        """The state before the first frame, every key (batch, ...), on the module's device."""
        raise NotImplementedError

    def forward(self, obs: Obs, state: State, first: Tensor) -> tuple[Tensor, State, Extras]:
        """Every key (T, B, ...) -> features (T, B, width), the state after them, and extras.

        Where `first` (T, B) is true a frame begins an episode, and the state is reset before it.
        """
        raise NotImplementedError

    def step(self, obs: Obs, state: State, first: Tensor) -> tuple[Tensor, State, Extras]:
        """One frame: every key (B, ...), `first` (B,) -> features (B, width)."""
        one = {key: value[None] for key, value in obs.items()}
        features, state, extras = self(one, state, first[None])
        return features[0], state, {key: value[0] for key, value in extras.items()}
