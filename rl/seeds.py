"""Several seeds of one policy as one agent: their weights are stacked, each kernel runs for all.

One seed's update fills a small part of a GPU, so many cost little more than one. The agents stay
what they are: their weights and Adam's moments become views of the stacks, and what else they do
(noise from their own generators, copies of the target network, checkpoints) goes on seed by seed.
Each seed ends where it would have ended alone, but for the order in which sums are taken.

Runs on any device; on a CPU, where small products cost what they cost, seeds are faster as
processes side by side. Times on a GPU are still to be measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from pretrain.encoder import Obs
from rl.agent import Agent, Batch, OffPolicyConfig, State, push
from rl.compiled import Compiled

FIELDS = [field.name for field in fields(Batch)]
POLICY = "policy."  # what its weights' names begin with in the learner's

Weights = Mapping[str, Tensor]


class Clipped(OffPolicyConfig, Protocol):
    """Hyperparameters of an agent that shortens long gradients."""

    @property
    def gradient_norm(self) -> float:
        """The length that none exceeds."""
        ...


class Stackable(Agent, Protocol):
    """An agent whose update descends the value of one module; Rainbow's is."""

    updates: int  # made so far
    compiled: bool  # whether torch is to compile the update
    weights: dict[str, Tensor]  # of the learner, buffers too
    trained: dict[str, Tensor]  # those that the optimizer changes
    optimizer: torch.optim.Optimizer

    @property
    def learner(self) -> nn.Module:
        """From a Batch to the loss and what else is told of it; holds `policy`."""
        ...

    @property
    def config(self) -> Clipped:
        """Its hyperparameters."""
        ...

    def optimizer_of(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """A fresh optimizer, for these."""
        ...

    def greedy(self, logits: Tensor) -> Tensor:
        """Actions (B,) from what `policy` makes of stacks."""
        ...

    def prepare(self) -> None:
        """What an update begins with."""
        ...

    def conclude(self) -> None:
        """What an update ends with."""
        ...


class Seeds:
    """Acts and learns as an agent does, where the first dimension (S) is the seed.

    Raises ValueError where the agents have not made the same number of updates: Adam's correction
    of its moments depends on it.
    """

    def __init__(self, agents: Sequence[Stackable]) -> None:
        """The agents' weights move into stacks, out of older ones where they lie in such."""
        if len({agent.updates for agent in agents}) != 1:
            raise ValueError(f"agents: after {[agent.updates for agent in agents]} updates")
        self.agents, self.config = agents, agents[0].config
        self.weights = {
            name: torch.stack([agent.weights[name].detach() for agent in agents])
            for name in agents[0].weights
        }
        self.trained = {name: self.weights[name] for name in agents[0].trained}
        self.rest = {k: v for k, v in self.weights.items() if k not in self.trained}
        self.policy = {
            k.removeprefix(POLICY): v for k, v in self.weights.items() if k.startswith(POLICY)
        }
        self.optimizer = agents[0].optimizer_of(self.trained.values())
        for seed, agent in enumerate(agents):
            agent.policy.train()
            for name, weight in agent.weights.items():
                weight.data = self.weights[name][seed]
        for name in self.trained:
            self._share_moments(name)
        self._acting = vmap(self._logits)
        learning = vmap(grad_and_value(self._loss, has_aux=True))
        self._learning = Compiled(learning) if agents[0].compiled else learning

    def _share_moments(self, name: str) -> None:
        """Stack Adam's moments of one weight, and let the agents' be views."""
        owners = [(agent.optimizer.state, agent.trained[name]) for agent in self.agents]
        parts = [state[weight] or _no_moments(weight) for state, weight in owners]
        stacks = {key: torch.stack([p[key] for p in parts]) for key in ("exp_avg", "exp_avg_sq")}
        step = parts[0]["step"].clone()  # the same of all
        self.optimizer.state[self.trained[name]] = {"step": step} | stacks
        for seed, (state, weight) in enumerate(owners):
            state[weight] = {"step": step} | {key: stack[seed] for key, stack in stacks.items()}

    @torch.no_grad()
    def act(
        self, obs: Obs, state: State | None, first: Tensor, *, explore: bool
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """Each seed's action (S,) for its one frame, and the next state; no extras."""
        assert explore, "seeds only train together"
        state = push(obs, state, first, self.config.stack)
        logits = self._acting(self.policy, {key: value[:, None] for key, value in state.items()})
        return self.agents[0].greedy(logits[:, 0]), state, {}

    def _logits(self, weights: Weights, stack: Obs) -> Tensor:
        logits: Tensor = functional_call(self.agents[0].policy, dict(weights), (stack,))[0]
        return logits

    def update(self, batches: Sequence[Batch]) -> list[dict[str, Tensor]]:
        """A gradient step of every seed on its own batch; what each agent's own would return."""
        for agent in self.agents:
            agent.prepare()
        batch = [_stacked([getattr(batch, name) for batch in batches]) for name in FIELDS]
        gradients, (loss, told) = self._learning(self.trained, self.rest, batch)
        parts = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients.values()])
        norm = parts.norm(dim=0)  # (S,)
        told |= {"loss": loss, "gradient_norm": norm}
        scale = (self.config.gradient_norm / (norm + 1e-6)).clamp_max(1)
        for name, weight in self.trained.items():
            cut = gradients[name] * scale.view(-1, *[1] * (weight.dim() - 1))
            weight.grad = cut.contiguous()  # see layers.set_gradients
        self.optimizer.step()
        for agent in self.agents:
            agent.conclude()
        return [{k: v[seed] for k, v in told.items()} for seed in range(len(self.agents))]

    def _loss(
        self, trained: Weights, rest: Weights, batch: Sequence[Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        found: tuple[Tensor, dict[str, Tensor]] = functional_call(
            self.agents[0].learner, {**trained, **rest}, (Batch(*batch),)
        )
        return found


def _no_moments(weight: Tensor) -> dict[str, Tensor]:
    """Adam's state before its first step."""
    zeros = {key: torch.zeros_like(weight.detach()) for key in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), device=weight.device)} | zeros


def _stacked(parts: Sequence[Any]) -> Any:
    """Tensors or Obs of them, one a seed, as one with the seeds in front."""
    if isinstance(parts[0], dict):
        return {key: torch.stack([part[key] for part in parts]) for key in parts[0]}
    return torch.stack(list(parts))
