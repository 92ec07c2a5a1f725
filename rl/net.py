"""Networks below an agent's heads: a Net takes a stack of frames, a Core a sequence of them."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from pretrain.encoder import Obs

State = dict[str, Tensor]
"""A core's memory from frame to frame, every key (B, ...)."""

Extras = dict[str, Tensor]
"""A network's outputs beside its features: "attention" (..., heads, N) over N tokens, or a mask
(..., K, h, w) over the image.
"""


class Net(nn.Module):
    """Stacked features -> one vector of length `width`; no state."""

    width: int
    attends: ClassVar[bool] = False  # its extras have "attention"
    faster_compiled = False  # whether compiling makes an update on a CPU faster

    def forward(self, stack: Obs) -> tuple[Tensor, Extras]:
        """Every key (B, S, ...) -> features (B, width) and extras of the newest frame."""
        raise NotImplementedError


class Core(nn.Module):
    """Features of T frames of B environments, in time order -> T x B vectors of length `width`.

    `rl.stack.FrameStack` makes a Core of any Net; a net with a memory of its own is a Core. T steps
    at once give the same result as the steps one by one, for any T. A test checks that for every
    core.
    """

    width: int
    attends: ClassVar[bool] = False  # its extras have "attention"
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
