"""PPO: proximal policy optimisation with a clipped objective.

Schulman et al. (2017), eq. 7 and 9, with the numbers of OpenAI Baselines' Atari defaults that
Nikulin et al., "Free-Lunch Saliency via Attention in Atari Agents" (2019), train with: 8
environments of 128 steps, 4 epochs of 4 minibatches, GAE of λ 0.95, the value's loss clipped too,
advantages normalised in each minibatch, a constant clip of 0.1 and a learning rate that falls
linearly to zero. 48,828 whole updates are the most in their 50M agent steps.

Minibatches are of single transitions. A core with a memory that is no stack of frames gets whole
environments instead, in time order, as recurrent policies do in Baselines.

Expect on Pong a return above 0 after some 1M steps, on Breakout above 20 after 1M and about 400
only after 10M.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from datasets.checked import Count, Fraction, NonNegative, Positive
from pretrain.encoder import Obs
from pretrain.modules.precision import Precision
from rl.actor_critic import ActorCriticAgent, entropy, log_prob_of
from rl.agent import OnPolicyConfig, Rollout
from rl.net import Core, State
from rl.returns import gae
from rl.stack import FrameStack

ACTIONS = "discrete"
# kind of features -> net
NETS = {
    "pixels": "nature_cnn",
    "masked": "masked_cnn",
    "tokens": "tokens",
    "vector": "vector",
    "state": "vector",
}


@dataclass(frozen=True)
class Config(OnPolicyConfig):
    """OpenAI Baselines' ppo2 on Atari."""

    steps: Count = 48_828 * 1_024  # environment steps
    num_envs: Count = 8
    unroll: Count = 128
    stack: Count = 4
    gamma: Fraction = 0.99
    rewards: Literal["sign", "raw"] = "sign"
    precision: Precision = "auto"
    lam: Fraction = 0.95  # GAE's λ
    epochs: Count = 4
    minibatches: Count = 4  # an epoch
    clip: Positive = 0.1
    learning_rate: Positive = 2.5e-4  # at the start; zero at the end
    adam_epsilon: Positive = 1e-5
    value_weight: NonNegative = 0.5
    entropy_weight: NonNegative = 0.01
    gradient_norm: Positive = 0.5

    def rules(self) -> Iterator[str]:
        """Minibatches are of one size."""
        yield from super().rules()
        size = self.num_envs * self.unroll
        if size % self.minibatches:
            yield f"minibatches: {self.minibatches}, must divide num_envs * unroll ({size})"

    def misfits(self, core: Core) -> Iterator[str]:
        """Minibatches are of whole environments for a network with a memory of its own."""
        if not isinstance(core, FrameStack) and self.num_envs % self.minibatches:
            yield (
                f"minibatches: {self.minibatches}, must divide num_envs ({self.num_envs}) for a "
                "net with a memory of its own"
            )


@dataclass(frozen=True, slots=True)
class Samples:
    """What PPO learns from: sequences of T steps from N memories; T is 1 for transitions."""

    state: State  # every key (N, ...)
    obs: Obs  # every key (T, N, ...)
    first: Tensor  # (T, N), as all below
    action: Tensor
    log_prob: Tensor
    value: Tensor
    advantage: Tensor

    def rows(self, index: Tensor) -> Samples:
        """Some of the N."""
        parts: dict[str, Any] = {part.name: getattr(self, part.name) for part in fields(self)}
        state = {key: each[index] for key, each in parts.pop("state").items()}
        obs = {key: each[:, index] for key, each in parts.pop("obs").items()}
        return Samples(state, obs, **{name: part[:, index] for name, part in parts.items()})


class Agent(ActorCriticAgent):
    """PPO: several passes over a rollout in minibatches."""

    def __init__(
        self, config: Config, core: Core, *, actions: int, seed: int, device: torch.device | str
    ) -> None:
        super().__init__(config, core, actions=actions, seed=seed, device=device)
        self.config = config
        self.optimizer = torch.optim.Adam(
            self.trained_parameters, lr=config.learning_rate, eps=config.adam_epsilon, foreach=True
        )

    def update(self, rollout: Rollout) -> dict[str, Tensor]:
        """All epochs; scalars are means over the minibatches and stay on the device."""
        samples = self.samples(rollout)
        count = len(samples.action[0])
        size = count // self.config.minibatches
        scalars: list[dict[str, Tensor]] = []
        self._anneal()
        for _ in range(self.config.epochs):
            order = torch.randperm(count, generator=self.generator, device=self.device)
            scalars += [self._step(samples.rows(index)) for index in order.view(-1, size)]
        self.updates += 1
        return {name: torch.stack([each[name] for each in scalars]).mean() for name in scalars[0]}

    def samples(self, rollout: Rollout) -> Samples:
        """A rollout as what minibatches are sampled from."""
        advantage = gae(
            rollout.reward, rollout.discount, rollout.value, rollout.last_value, self.config.lam
        )
        state, obs, first = rollout.state, rollout.obs, rollout.first
        parts = [rollout.action, rollout.log_prob, rollout.value, advantage]
        if isinstance(self.core, FrameStack):
            obs, state, first = self.core.split_steps(obs, state, first)
            parts = [part.view(1, -1) for part in parts]
        return Samples(state, obs, first, *parts)

    def _anneal(self) -> None:
        updates = self.config.steps // (self.config.num_envs * self.config.unroll)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * (1 - self.updates / updates)

    def _step(self, batch: Samples) -> dict[str, Tensor]:
        with self.training():
            log_policy, value, _, _ = self.policy(batch.obs, batch.state, batch.first)
        loss, scalars = self.loss(batch, log_policy, value)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(
            self.trained_parameters, self.config.gradient_norm, foreach=True
        )
        self.optimizer.step()
        return scalars | {"gradient_norm": norm}

    def loss(
        self, batch: Samples, log_policy: Tensor, value: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The clipped objective's loss, the value's and the entropy's, weighted, and scalars."""
        config = self.config
        assert value.shape == batch.advantage.shape
        log_ratio = log_prob_of(log_policy, batch.action) - batch.log_prob
        policy_loss = clipped_loss(log_ratio.exp(), standardise(batch.advantage), config.clip)
        target = batch.advantage + batch.value
        value_loss = clipped_value_loss(value, batch.value, target, config.clip)
        uncertainty = entropy(log_policy).mean()
        loss = policy_loss + config.value_weight * value_loss - config.entropy_weight * uncertainty
        beyond = (log_ratio.exp() - 1).abs() > config.clip
        parts = {
            "loss": loss,
            "value_loss": value_loss,
            "entropy": uncertainty,
            "clipped": beyond.float().mean(),
        }
        return loss, {name: part.detach() for name, part in parts.items()}


def standardise(advantage: Tensor) -> Tensor:
    """Of mean 0 and standard deviation 1 over the minibatch."""
    return (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)


def clipped_loss(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """-mean min(r A, clip(r, 1 - ε, 1 + ε) A): eq. 7, to be minimised."""
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


def clipped_value_loss(value: Tensor, old: Tensor, target: Tensor, clip: float) -> Tensor:
    """Half the mean of the larger squared error: of V, and of V held within ε of the old one."""
    clipped = old + (value - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((value - target).square(), (clipped - target).square()).mean()
