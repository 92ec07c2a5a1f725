"""A2C: synchronous advantage actor-critic.

Mnih et al., "Asynchronous Methods for Deep Reinforcement Learning" (ICML 2016), section 4, with
synchronous environments as in OpenAI Baselines. The settings are those of Wu, Khetarpal and Precup,
"Self-Supervised Attention-Aware Reinforcement Learning" (AAAI 2021), whose released code builds on
a PyTorch A2C: 16 environments of 5 steps, RMSprop without annealing, no GAE. Differs from that
code: where an episode is truncated, the return bootstraps from V of its true last frame.

Expect on Breakout a return above 20 after some 2.5M steps, on Pong above 0 after 1.5 to 2.5M.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from datasets.checked import Count, Fraction, NonNegative, Positive
from pretrain.modules.precision import Precision
from rl.actor_critic import ActorCriticAgent, actor_critic_loss
from rl.agent import OnPolicyConfig, Rollout
from rl.net import Core

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
    """Wu, Khetarpal and Precup 2021, released code."""

    steps: Count = 10_000_000  # environment steps
    num_envs: Count = 16
    unroll: Count = 5
    stack: Count = 4
    gamma: Fraction = 0.99
    rewards: Literal["sign", "raw"] = "sign"
    precision: Precision = "auto"
    learning_rate: Positive = 7e-4
    rms_decay: Fraction = 0.99
    rms_epsilon: Positive = 1e-5
    value_weight: NonNegative = 0.5
    entropy_weight: NonNegative = 0.01
    gradient_norm: Positive = 0.5


class Agent(ActorCriticAgent):
    """A2C: one step along the gradient of a rollout."""

    def __init__(
        self, config: Config, core: Core, *, actions: int, seed: int, device: torch.device | str
    ) -> None:
        super().__init__(config, core, actions=actions, seed=seed, device=device)
        self.config = config
        self.optimizer = torch.optim.RMSprop(
            self.trained_parameters,
            lr=config.learning_rate,
            alpha=config.rms_decay,
            eps=config.rms_epsilon,
            foreach=True,
        )

    def update(self, rollout: Rollout) -> dict[str, Tensor]:
        """One step; scalars stay on the device."""
        with self.training():
            log_policy, value, _, _ = self.policy(rollout.obs, rollout.state, rollout.first)
        loss, scalars = actor_critic_loss(rollout, log_policy, value, self.config)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(
            self.trained_parameters, self.config.gradient_norm, foreach=True
        )
        self.optimizer.step()
        self.updates += 1
        return scalars | {"gradient_norm": norm}
