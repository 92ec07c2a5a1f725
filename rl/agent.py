"""The interface of agents: the batch they learn from, how they act, how they are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from datasets.checked import Checked, Count, Fraction
from pretrain.encoder import Obs
from pretrain.modules.precision import Precision
from rl.net import Core, Extras, State


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


@dataclass(frozen=True, slots=True)
class Rollout:
    """T steps of B environments side by side, in time order and in single frames.

    `reward` has γ·V(true last frame) in it where an episode was truncated; `discount` is γ, or 0
    where the episode ended either way: there is no `done`.
    """

    obs: Obs  # every key (T, B, ...)
    first: Tensor  # (T, B) bool: obs begins an episode, and memory is reset before it
    state: State  # every key (B, ...): the memory before obs[0]
    action: Tensor  # (T, B) int64
    reward: Tensor  # (T, B) float32
    discount: Tensor  # (T, B) float32
    log_prob: Tensor  # (T, B) log π of the actions when they were taken
    value: Tensor  # (T, B) V of obs then
    last_value: Tensor  # (B,) V of what the last action led to


@dataclass(frozen=True)
class OffPolicyConfig(Checked):
    """The hyperparameters that the loop of rl/off_policy.py reads; a base of agents' Configs."""

    steps: Count  # environment steps of a whole training
    learn_start: Count  # uniform random actions, and no update, until then
    update_every: Count  # environment steps an update
    replay_capacity: Count  # rows
    batch_size: Count  # transitions an update
    stack: Count  # frames a state
    n_step: Count  # steps of a return
    gamma: Fraction  # discount a step

    rewards: ClassVar[Literal["sign", "raw"]] = "raw"  # what is learned from

    @property
    def priority_exponent(self) -> float:
        """The α of prioritised replay; 0 is uniform. A field where an agent takes others."""
        return 0.0

    @property
    def priority_weight(self) -> float:
        """The β of prioritised replay at the start; 1 at the end."""
        return 1.0

    def rules(self) -> Iterator[str]:
        """Learning begins before the end, with a return's steps in replay."""
        if self.learn_start <= self.n_step:
            yield f"learn_start: {self.learn_start}, must exceed n_step {self.n_step}"
        if self.learn_start >= self.steps:
            yield f"learn_start: {self.learn_start}, must be below steps {self.steps}"
        if self.replay_capacity <= self.n_step + self.stack:
            yield f"replay_capacity: {self.replay_capacity}, must exceed n_step + stack rows"


@dataclass(frozen=True)
class OnPolicyConfig(Checked):
    """The hyperparameters that the loop of rl/on_policy.py reads; a base of agents' Configs."""

    steps: Count  # of all environments together in a whole training
    num_envs: Count  # environments side by side
    unroll: Count  # steps of each between updates
    stack: Count  # frames a state, of nets without a memory of their own
    gamma: Fraction  # discount a step
    rewards: Literal["sign", "raw"]  # what is learned from
    precision: Precision  # "auto": bfloat16 products in training where the processor has them

    def rules(self) -> Iterator[str]:
        """Training is a whole number of rollouts."""
        rollout = self.num_envs * self.unroll
        if self.steps % rollout:
            yield f"steps: {self.steps}, must be a multiple of num_envs * unroll ({rollout})"


B = TypeVar("B", contravariant=True)  # what an agent learns from


class Agent(Protocol[B]):
    """A learner over encoder features.

    `policy` is what acting needs: its state dict is what a weights file holds. `state_dict` is the
    whole learner (targets, optimizer, random states): enough to go on bit for bit.
    """

    device: torch.device

    @property
    def config(self) -> Any:
        """The hyperparameters, the agent's own Config."""
        ...

    @property
    def policy(self) -> nn.Module:
        """The acting network."""
        ...

    @property
    def core(self) -> Core:
        """The part of it that remembers."""
        ...

    def act(
        self, obs: Obs, state: State, first: Tensor, *, explore: bool
    ) -> tuple[Tensor, State, Extras]:
        """Actions for one frame of B environments, the next state, and extras.

        Actions are (B,) int64, or (B, A) float32 in [-1, 1] where they are continuous. `state` is
        `core.initial(B)` or what the last call returned; it is reset where `first` (B,) is true.
        """
        ...

    def update(self, batch: B) -> dict[str, Tensor]:
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


class OnPolicyAgent(Agent[Rollout], Protocol):
    """An agent that learns from rollouts of its present policy.

    Extras of `act` hold `log_prob` (B,) of the actions and `value` (B,) of the observations.
    """

    def value(self, obs: Obs, state: State, first: Tensor) -> Tensor:
        """V (B,) of one frame more, which no action follows."""
        ...


@runtime_checkable
class Compilable(Protocol):
    """An agent whose update torch can compile."""

    def compile(self) -> None:
        """Compile the update, where that makes it faster."""
        ...
