"""IMPALA's learner: an actor-critic with V-trace on rollouts.

Espeholt et al., "IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner
Architectures" (ICML 2018), section 4, with the numbers of Mott et al., "Towards Interpretable
Reinforcement Learning Using Attention Augmented Agents" (NeurIPS 2019), A.1: 32 trajectories of 50
steps an update, RMSProp of ε 0.01, rewards within ±1, one frame a state; 2e9 emulator frames (A.4).

The actors are synchronous here: they act with the weights that learn from their steps, so V-trace's
ratios are 1 but for rounding, and it is reproducible. Where the papers are silent:
- losses are sums over time and environments, as in IMPALA's code. S3TA clips "gradients to be in
  the range [-1280,1280]"; here that is the global norm, since 1280 is 32 times IMPALA's 40;
- RMSProp is TensorFlow's (rl/rmsprop.py), the learning rate constant, the weight of V's loss 0.5;
- a lost life does not end an episode; where one is truncated, V of its true last frame bootstraps.

A batch's network is some gigabytes in memory, so gradients are summed up over `group` environments
at a time; that does not change the result.

Expect the scores of S3TA's Tables 3 and 4 with their nets (top_down, impala_resnet).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from datasets.checked import Count, Fraction, NonNegative, Positive
from pretrain.modules.precision import Precision
from rl.actor_critic import ActorCriticAgent, Weights, entropy, log_prob_of
from rl.agent import OnPolicyConfig, Rollout
from rl.net import Core
from rl.returns import vtrace
from rl.rmsprop import RMSprop

ACTIONS = "discrete"
# kind of features -> net
NETS = {
    "pixels": "impala_resnet",
    "masked": "masked_cnn",
    "tokens": "tokens",
    "vector": "vector",
    "state": "vector",
}


@dataclass(frozen=True)
class Config(OnPolicyConfig):
    """Mott et al. 2019, A.1."""

    steps: Count = 500_000_000  # environment steps, of four emulator frames
    num_envs: Count = 32
    unroll: Count = 50
    stack: Count = 1
    gamma: Fraction = 0.99
    rewards: Literal["clip", "sign", "raw"] = "clip"
    life_loss_ends: bool = False
    precision: Precision = "auto"
    learning_rate: Positive = 2e-4
    rms_decay: Fraction = 0.99
    rms_epsilon: Positive = 0.01
    value_weight: NonNegative = 0.5
    entropy_weight: NonNegative = 0.01
    gradient_norm: Positive = 1280.0
    group: Count = 8  # environments whose gradients are computed at once


class Agent(ActorCriticAgent):
    """One step along the gradient of a rollout's V-trace losses."""

    def __init__(
        self, config: Config, core: Core, *, actions: int, seed: int, device: torch.device | str
    ) -> None:
        super().__init__(config, core, actions=actions, seed=seed, device=device)
        self.config = config
        self.optimizer = RMSprop(
            self.trained_parameters,
            learning_rate=config.learning_rate,
            decay=config.rms_decay,
            epsilon=config.rms_epsilon,
        )

    def update(self, rollout: Rollout) -> dict[str, Tensor]:
        """One step; scalars stay on the device."""
        self.optimizer.zero_grad()
        scalars = [self._accumulate(part) for part in groups(rollout, self.config.group)]
        norm = nn.utils.clip_grad_norm_(
            self.trained_parameters, self.config.gradient_norm, foreach=True
        )
        self.optimizer.step()
        self.updates += 1
        sums = {name: torch.stack([each[name] for each in scalars]).sum() for name in scalars[0]}
        count = rollout.reward.numel()
        return {name: each / count for name, each in sums.items()} | {"gradient_norm": norm}

    def _accumulate(self, rollout: Rollout) -> dict[str, Tensor]:
        """Add the gradients of some environments to those of the others."""
        with self.training():
            log_policy, value, _, _ = self.policy(rollout.obs, rollout.state, rollout.first)
        loss, scalars = vtrace_loss(rollout, log_policy, value, self.config)
        torch.autograd.backward(loss)
        return scalars


def vtrace_loss(
    rollout: Rollout, log_policy: Tensor, value: Tensor, weights: Weights
) -> tuple[Tensor, dict[str, Tensor]]:
    """IMPALA's loss of a rollout (section 4.2), and its terms for logging, all sums.

    Σ -A log π + c_v ½ (v - V)² - c_e H, where V-trace's targets v and advantages A are constants.
    `log_policy` (T, B, actions) and `value` (T, B) carry gradients.
    """
    log_prob = log_prob_of(log_policy, rollout.action)
    assert value.shape == log_prob.shape == rollout.reward.shape
    target, advantage = vtrace(
        rollout.reward,
        rollout.discount,
        value.detach(),
        rollout.last_value,
        log_prob.detach() - rollout.log_prob,
    )
    policy_loss, uncertainty = -(advantage * log_prob).sum(), entropy(log_policy).sum()
    value_loss = 0.5 * (target - value).square().sum()
    loss = policy_loss + weights.value_weight * value_loss - weights.entropy_weight * uncertainty
    return loss, {
        "loss": loss.detach(),
        "value_loss": value_loss.detach(),
        "entropy": uncertainty.detach(),
    }


def groups(rollout: Rollout, size: int) -> Iterator[Rollout]:
    """A rollout's environments, `size` at a time."""
    for start in range(0, rollout.reward.shape[1], size):
        rows = slice(start, start + size)
        yield Rollout(
            obs={key: each[:, rows] for key, each in rollout.obs.items()},
            first=rollout.first[:, rows],
            state={key: each[rows] for key, each in rollout.state.items()},
            action=rollout.action[:, rows],
            reward=rollout.reward[:, rows],
            discount=rollout.discount[:, rows],
            log_prob=rollout.log_prob[:, rows],
            value=rollout.value[:, rows],
            last_value=rollout.last_value[rows],
        )
