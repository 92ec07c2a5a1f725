"""ACKTR: actor-critic with natural gradients by Kronecker factors.

Wu et al., "Scalable trust-region method for deep reinforcement learning using Kronecker-factored
approximation" (NeurIPS 2017). A2C's loss; the Fisher matrix is that of the actions taken and of a
unit Gaussian around the value, over the whole network, and rl/kfac.py does the rest. The numbers
are those of the code that Wu, Khetarpal and Precup (2021) released; it leaves the environments and
the unroll open, which are the defaults of the code that it builds on (32 of 20 steps).

As in that code, a mask generator Ψ has no K-FAC factors: its gradients are unchanged, in the same
SGD (learning rate 0.025, momentum 0.9), beside the steps of Adam if it is trained jointly. Differs
from that code: a bias is in the factors of its weight, and other parameters without factors (layer
norms) have unchanged gradients as well.

The paper reports that it needs a half to a third of A2C's steps on most Atari games. On one core a
step takes 2 to 3 times A2C's: of an update's 1.3 s with 32 channels in the third convolution, 0.9
are for the factors. Inverting them, every tenth update, takes 0.4 s, and 3.5 s with 64 channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from datasets.checked import Count, Fraction, NonNegative, Positive
from pretrain.modules.precision import Precision
from rl.actor_critic import ActorCriticAgent, actor_critic_loss, log_prob_of
from rl.agent import OnPolicyConfig, Rollout
from rl.kfac import KFAC
from rl.net import Core
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
    """Wu, Khetarpal and Precup 2021, released code."""

    steps: Count = 10_000_000  # environment steps
    num_envs: Count = 32
    unroll: Count = 20
    stack: Count = 4
    gamma: Fraction = 0.99
    rewards: Literal["sign", "raw"] = "sign"
    precision: Precision = "auto"
    learning_rate: Positive = 0.25
    momentum: Fraction = 0.9
    factor_decay: Fraction = 0.99  # of the factors' running averages
    damping: Positive = 1e-2
    kl_clip: Positive = 1e-3
    invert_every: Count = 10  # updates
    value_weight: NonNegative = 0.5
    entropy_weight: NonNegative = 0.01

    def misfits(self, core: Core) -> Iterator[str]:
        """A layer runs once in a pass: its factors are sums over independent samples."""
        if not isinstance(core, FrameStack):
            yield "net: has a memory of its own, but K-FAC has no factors for it; name another net"


class Agent(ActorCriticAgent):
    """ACKTR: one natural-gradient step of a rollout."""

    def __init__(
        self, config: Config, core: Core, *, actions: int, seed: int, device: torch.device | str
    ) -> None:
        super().__init__(config, core, actions=actions, seed=seed, device=device)
        self.config = config
        self.optimizer = KFAC(
            self.policy,
            learning_rate=config.learning_rate,
            momentum=config.momentum,
            decay=config.factor_decay,
            damping=config.damping,
            kl_clip=config.kl_clip,
            invert_every=config.invert_every,
            plain=core.masks,
        )

    def update(self, rollout: Rollout) -> dict[str, Tensor]:
        """One step; scalars stay on the device."""
        with self.training(), self.optimizer.capture():
            log_policy, value, _, _ = self.policy(rollout.obs, rollout.state, rollout.first)
        self.optimizer.observe(self.sampled_loss(log_policy, value, rollout.action), value.numel())
        loss, scalars = actor_critic_loss(rollout, log_policy, value, self.config)
        self.policy.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.updates += 1
        return scalars

    def sampled_loss(self, log_policy: Tensor, value: Tensor, action: Tensor) -> Tensor:
        """The mean of -log p of outputs sampled from the network's own distributions.

        The actions taken were sampled from π; the values are sampled here, from a unit Gaussian.
        """
        noise = torch.randn(value.shape, generator=self.generator, device=self.device)
        target = value.detach() + noise
        return (0.5 * (value - target).square() - log_prob_of(log_policy, action)).mean()
