"""The interface of agents: batches and rollouts, the base Configs, acting, updating and state."""

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
from rl.stack import FrameStack


@dataclass(frozen=True, slots=True)
class Batch:
    """Transitions sampled from replay, B of them, on the agent's device.

    `reward` is the n-step return; `discount` is γ^m after m steps, or 0 where the episode
    terminated within them: there is no `done`. Where the episode was truncated, `next_obs` is its
    true last frame and `discount` stays γ^m.
    """

    obs: Obs  # stacked: every key (B, S, ...)
    action: Tensor  # (B,) int64 index, or (B, A) float32
    reward: Tensor  # (B,) float32
    discount: Tensor  # (B,) float32
    next_obs: Obs  # stacked; meaningless where discount is 0
    weight: Tensor  # (B,) float32 importance weights, at most 1
    index: Tensor  # (B,) int64 replay rows, for new priorities


@dataclass(frozen=True, slots=True)
class Rollout:
    """T steps of B parallel environments, in time order, as single frames.

    `reward` includes γ·V(true last frame) where an episode was truncated. `discount` is γ, or 0
    where the episode was terminated or truncated: there is no `done`.
    """

    obs: Obs  # every key (T, B, ...)
    first: Tensor  # (T, B) bool: obs begins an episode, and memory is reset before it
    state: State  # every key (B, ...): the memory before obs[0]
    action: Tensor  # (T, B) int64
    reward: Tensor  # (T, B) float32
    discount: Tensor  # (T, B) float32
    log_prob: Tensor  # (T, B) log π of the actions at the time they were taken
    value: Tensor  # (T, B) V of obs at that time
    last_value: Tensor  # (B,) V of the observation after the last action


@dataclass(frozen=True)
class OffPolicyConfig(Checked):
    """The hyperparameters that the loop of rl/off_policy.py reads; a base of agents' Configs."""

    steps: Count  # environment steps of a whole training
    learn_start: Count  # steps of uniform random actions, before the first update
    update_every: Count  # environment steps an update
    replay_capacity: Count  # rows
    batch_size: Count  # transitions an update
    stack: Count  # frames a state
    n_step: Count  # steps of a return
    gamma: Fraction  # discount a step

    rewards: ClassVar[Literal["sign", "raw"]] = "raw"  # in replay

    @property
    def priority_exponent(self) -> float:
        """The α of prioritised replay; 0 is uniform. An agent may make it a field."""
        return 0.0

    @property
    def priority_weight(self) -> float:
        """The β of prioritised replay at the start; it is 1 at the end."""
        return 1.0

    def rules(self) -> Iterator[str]:
        """Updates begin before the end, with enough rows in replay for a return."""
        if self.learn_start <= self.n_step:
            yield f"learn_start: {self.learn_start}, must exceed n_step {self.n_step}"
        if self.learn_start >= self.steps:
            yield f"learn_start: {self.learn_start}, must be below steps {self.steps}"
        if self.replay_capacity <= self.n_step + self.stack:
            yield f"replay_capacity: {self.replay_capacity}, must exceed n_step + stack rows"

    def misfits(self, core: Core) -> Iterator[str]:
        """Why the agent cannot be trained with a network, as `key: reason`."""
        if not isinstance(core, FrameStack):
            yield "net: has a memory of its own, but replay stacks frames; name another net"
        if core.has_auxiliary:
            yield "net: has a loss on rollouts, but the agent learns from replay; name another net"


@dataclass(frozen=True)
class OnPolicyConfig(Checked):
    """The hyperparameters that the loop of rl/on_policy.py reads; a base of agents' Configs."""

    steps: Count  # of all environments together in a whole training
    num_envs: Count  # parallel environments
    unroll: Count  # steps of each between updates
    stack: Count  # frames a state, for nets without a memory of their own
    gamma: Fraction  # discount a step
    rewards: Literal["sign", "raw"]  # in rollouts
    precision: Precision  # "auto": bfloat16 products in training where the processor has them

    def rules(self) -> Iterator[str]:
        """Training is a whole number of rollouts."""
        rollout = self.num_envs * self.unroll
        if self.steps % rollout:
            yield f"steps: {self.steps}, must be a multiple of num_envs * unroll ({rollout})"

    def misfits(self, core: Core) -> Iterator[str]:
        """Why the agent cannot be trained with a network, as `key: reason`."""
        return iter(())


B = TypeVar("B", contravariant=True)  # Batch or Rollout


class Agent(Protocol[B]):
    """A learner over encoder features.

    `policy` is the acting network, whose state dict is a weights file. `state_dict` is the whole
    learner (targets, optimizer, random states), from which training goes on bit for bit.
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
        """The part of the network that has a memory."""
        ...

    def act(
        self, obs: Obs, state: State, first: Tensor, *, explore: bool
    ) -> tuple[Tensor, State, Extras]:
        """Actions for one frame of B environments, the next state, and extras.

        Actions are (B,) int64, or (B, A) float32 in [-1, 1] if they are continuous. `state` is
        `core.initial(B)` or the last call's; it is reset where `first` (B,) is true.
        """
        ...

    def update(self, batch: B) -> dict[str, Tensor]:
        """One optimisation step. Returns device scalars for logging, `loss` among them, and
        `priority` (B,) for prioritised replay.
        """
        ...

    def state_dict(self) -> dict[str, object]:
        """All state that the next update depends on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, bit for bit."""
        ...


class OnPolicyAgent(Agent[Rollout], Protocol):
    """An agent that learns from rollouts of its present policy.

    Extras of `act` include `log_policy` (B, actions), the logarithm of all actions' probabilities,
    `log_prob` (B,) of the actions taken and `value` (B,) of the observations.
    """

    def value(self, obs: Obs, state: State, first: Tensor) -> Tensor:
        """V (B,) of one more frame, after which no action is taken."""
        ...


@runtime_checkable
class Compilable(Protocol):
    """An agent whose update torch can compile."""

    def compile(self) -> None:
        """Compile the update if that makes it faster."""
        ...
