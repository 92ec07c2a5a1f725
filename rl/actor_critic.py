"""The base of on-policy agents: a policy and a value head on a core, acting, and A2C's loss."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pretrain.encoder import Obs
from pretrain.modules.precision import autocast
from rl.agent import OnPolicyConfig, Rollout
from rl.layers import orthogonal_
from rl.net import Core, Extras, State
from rl.returns import discounted


class ActorCritic(nn.Module):
    """A core and two linear heads on its features: logits of the actions, and the value.

    The heads' weights begin orthogonal, of gain 0.01 and 1, as in OpenAI Baselines.
    """

    def __init__(self, core: Core, actions: int) -> None:
        super().__init__()
        self.core = core
        self.actor = orthogonal_(nn.Linear(core.width, actions), 0.01)
        self.critic = orthogonal_(nn.Linear(core.width, 1), 1.0)

    def forward(
        self, obs: Obs, state: State, first: Tensor
    ) -> tuple[Tensor, Tensor, State, Extras]:
        """Every key (T, B, ...) -> log π (T, B, actions), V (T, B), the state and extras.

        The heads are in float32 even where training is in bfloat16: a V of 25 would be rounded to a
        multiple of 1/8, and so would the logits, whose small changes PPO's ratios are made of.
        """
        features, state, extras = self.core(obs, state, first)
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            log_policy = self.actor(features).log_softmax(-1)
            return log_policy, self.critic(features)[..., 0], state, extras


class ActorCriticAgent:
    """The network and the generator that samples actions; an agent adds its optimizer and update.

    Actions are sampled from the policy if `explore`, else they are its most probable ones.
    """

    optimizer: Any  # set by the agent

    def __init__(
        self, config: OnPolicyConfig, core: Core, *, actions: int, seed: int,
        device: torch.device | str,
    ) -> None:  # fmt: skip
        self.device = torch.device(device)
        self.policy = ActorCritic(core, actions).to(self.device)
        self.core = self.policy.core
        self.trained_parameters = [p for p in self.policy.parameters() if p.requires_grad]
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.updates = 0
        self.precision = config.precision

    def training(self) -> AbstractContextManager[None]:
        """The precision of rollouts and updates; evaluation is in float32."""
        return autocast(self.precision, self.device)

    @torch.no_grad()
    def act(
        self, obs: Obs, state: State, first: Tensor, *, explore: bool
    ) -> tuple[Tensor, State, Extras]:
        """Actions (B,); extras are the core's, `log_policy` (B, actions), `log_prob` (B,) of the
        actions taken and `value` (B,).
        """
        with self.training() if explore else nullcontext():
            log_policy, value, state, extras = self.policy(_one(obs), state, first[None])
        action = self._sample(log_policy) if explore else log_policy.argmax(-1)
        extras |= {"log_policy": log_policy, "value": value}
        extras |= {"log_prob": log_prob_of(log_policy, action)}
        return action[0], state, {key: each[0] for key, each in extras.items()}

    @torch.no_grad()
    def value(self, obs: Obs, state: State, first: Tensor) -> Tensor:
        """V (B,) of one more frame, after which no action is taken."""
        value: Tensor
        with self.training():
            _, value, _, _ = self.policy(_one(obs), state, first[None])
        return value[0]

    def _sample(self, log_policy: Tensor) -> Tensor:
        """Actions (...): the first events of Poisson processes whose rates are the probabilities.

        NaN probabilities give an action too, and the loop then raises DivergedError.
        """
        wait = torch.empty_like(log_policy).exponential_(generator=self.generator)
        return (log_policy.exp() / wait).argmax(-1)

    def state_dict(self) -> dict[str, object]:
        """All state that the next update depends on."""
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, bit for bit."""
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.updates = state["updates"]


class Weights(Protocol):
    """The weights of the terms of an actor-critic loss."""

    @property
    def value_weight(self) -> float:
        """The weight of V's squared error."""
        ...

    @property
    def entropy_weight(self) -> float:
        """The weight of the entropy, which is subtracted from the loss."""
        ...


def actor_critic_loss(
    rollout: Rollout, log_policy: Tensor, value: Tensor, weights: Weights
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of A2C (Mnih et al. 2016, section 4) on a rollout, and scalars for logging.

    -A log π + c_v A² - c_e H, averaged, where A = R - V of the discounted returns R is a constant
    in the first term. `log_policy` (T, B, actions) and `value` (T, B) carry gradients.
    """
    returns = discounted(rollout.reward, rollout.discount, rollout.last_value)
    assert value.shape == returns.shape == rollout.action.shape
    advantage = returns - value
    policy_loss = -(advantage.detach() * log_prob_of(log_policy, rollout.action)).mean()
    value_loss, uncertainty = advantage.square().mean(), entropy(log_policy).mean()
    loss = policy_loss + weights.value_weight * value_loss - weights.entropy_weight * uncertainty
    return loss, {
        "loss": loss.detach(),
        "value_loss": value_loss.detach(),
        "entropy": uncertainty.detach(),
    }


def log_prob_of(log_policy: Tensor, action: Tensor) -> Tensor:
    """log π (..., actions) -> log π (...) of the actions taken."""
    return log_policy.gather(-1, action[..., None])[..., 0]


def entropy(log_policy: Tensor) -> Tensor:
    """H (...) of log π (..., actions)."""
    return -(log_policy.exp() * log_policy).sum(-1)


def _one(obs: Obs) -> Obs:
    return {key: value[None] for key, value in obs.items()}
