"""What an agent is: the batch it learns from and the few things a training loop asks of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pretrain.encoder import Obs

State = Obs  # the rolling stack of the last S frames' features: every Obs key as (B, S, ...)


@dataclass(frozen=True, slots=True)
class Batch:
    """Transitions sampled from replay, B of them, on the agent's device.

    `reward` is the n-step return; `discount` is γ^m after m steps, or 0 where the episode
    terminated within them: there is no `done`. Where it was truncated, `next_obs` holds its true
    last frame and `discount` stays γ^m.
    """

    obs: Obs  # stacked: every key (B, S, ...)
    action: Tensor  # (B,) int64 index, or (B, A) float32
    reward: Tensor  # (B,) float32
    discount: Tensor  # (B,) float32
    next_obs: Obs  # stacked; without meaning where discount is 0
    weight: Tensor  # (B,) float32 importance weights, at most 1
    index: Tensor  # (B,) int64 replay rows, for new priorities


class OffPolicyConfig(Protocol):
    """The hyperparameters that the off-policy loop reads; every replay agent's Config has them."""

    @property
    def steps(self) -> int:
        """Environment steps of a whole training."""
        ...

    @property
    def learn_start(self) -> int:
        """Uniform random actions, and no update, until then."""
        ...

    @property
    def update_every(self) -> int:
        """Environment steps an update."""
        ...

    @property
    def batch_size(self) -> int:
        """Transitions an update."""
        ...

    @property
    def replay_capacity(self) -> int:
        """Rows that replay holds."""
        ...

    @property
    def n_step(self) -> int:
        """Steps of a return."""
        ...

    @property
    def gamma(self) -> float:
        """Discount a step."""
        ...

    @property
    def stack(self) -> int:
        """Frames a state."""
        ...

    @property
    def rewards(self) -> str:
        """What is learned from: "sign" of each reward, or "raw"."""
        ...

    @property
    def priority_exponent(self) -> float:
        """The α of prioritised replay; 0 is uniform."""
        ...

    @property
    def priority_weight(self) -> float:
        """The β of prioritised replay at the start; 1 at the end."""
        ...


class Agent(Protocol):
    """A learner over encoder features.

    `policy` is what acting needs: its state dict is what a weights file holds. `state_dict` is the
    whole learner (targets, optimizer, random states): enough to go on bit for bit.
    """

    device: torch.device

    @property
    def config(self) -> OffPolicyConfig:
        """Its hyperparameters."""
        ...

    @property
    def policy(self) -> nn.Module:
        """The acting network."""
        ...

    def act(
        self, obs: Obs, state: State | None, first: Tensor, *, explore: bool
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """Actions for one frame of B environments, the next state, and extras.

        Actions are (B,) int64, or (B, A) float32 in [-1, 1] where they are continuous.

        `state` is what the last call returned, None before the first; where `first` (B,) is true a
        new episode begins and its stack is zeroed. Extras may hold `attention` (B, heads, N).
        """
        ...

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One optimisation step; device scalars for logging, `loss` among them.

        And `priority` (B,) for replay, unless that is uniform.
        """
        ...

    def state_dict(self) -> dict[str, object]:
        """Everything that the next update depends on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, bit for bit."""
        ...


@runtime_checkable
class Compilable(Protocol):
    """An agent whose update torch can compile."""

    def compile(self) -> None:
        """Have it compiled, if that makes it faster."""
        ...


def push(obs: Obs, state: State | None, first: Tensor, depth: int) -> State:
    """The stack after one more frame: (B, depth, ...), oldest first, zeros before an episode."""
    stack: State = {}
    for key, value in obs.items():
        if state is None:
            past = value.new_zeros(value.shape[0], depth - 1, *value.shape[1:])
        else:
            kept = ~first.view(-1, *[1] * value.dim())
            past = state[key][:, 1:] * kept
        stack[key] = torch.cat([past, value[:, None]], dim=1)
    return stack
