"""Data-efficient Rainbow, the learner of SPIRL.

Hessel et al., "Rainbow" (2018): double Q, dueling streams, noisy layers, C51, n-step returns and
prioritised replay; van Hasselt et al. (2019) for the data-efficient setting; SPIRL's Tables 9 and
10 for the settings here. The 100K setting is the default; 400K has steps 400,000, replay_capacity
400,000 and update_every 4.

The noise σ of a bias starts at σ0/√inputs, as a weight's does (Fortunato et al.). The target
network samples its own noise at each update.

645,042 parameters on SPIRL's aggregator with 18 actions, 409,116 with 9; 1,149,810 on the
data-efficient CNN. Expect from SPIRL's features after 100K steps (its Table 2, mean and deviation
of 5 trials): Frostbite 670 (732), MsPacman 904 (286), Seaquest 558 (148), BattleZone 11980 (3827);
from pixels the scores in data_efficient_cnn.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from datasets.checked import Count, Fraction, NonNegative, Positive, Range, Width
from pretrain.encoder import Obs
from rl.agent import Batch, OffPolicyConfig
from rl.compiled import Compiled
from rl.layers import DuelingHead, resample_noise, scale_gradient, set_gradients
from rl.net import Extras, Net, State
from rl.returns import project
from rl.stack import FrameStack

ACTIONS = "discrete"
# kind of features -> net
NETS = {
    "tokens": "tokens",
    "vector": "tokens",
    "pixels": "data_efficient_cnn",
    "masked": "data_efficient_cnn",
}


@dataclass(frozen=True)
class Config(OffPolicyConfig):
    """SPIRL, Tables 9 and 10; settings that they leave out are Rainbow's."""

    steps: Count = 100_000
    learn_start: Count = 1_600
    update_every: Count = 1
    replay_capacity: Count = 100_000
    batch_size: Count = 32
    stack: Count = 4
    n_step: Count = 20
    gamma: Fraction = 0.99
    atoms: Annotated[int, Range(2, 1_000)] = 51
    value_min: float = -10.0
    value_max: float = 10.0
    hidden: Width = 256
    sigma: NonNegative = 0.5
    learning_rate: Positive = 1e-4
    adam_epsilon: Positive = 1.5e-4
    gradient_norm: Positive = 10.0
    gradient_scale: Positive = 0.5**0.5  # into the net below the two streams
    target_every: Count = 2_000  # updates between hard copies
    priority_exponent: Fraction = 0.5
    priority_weight: Fraction = 0.4

    rewards: ClassVar[Literal["sign", "raw"]] = "sign"

    def rules(self) -> Iterator[str]:
        """The atoms' interval is not empty."""
        yield from super().rules()
        if self.value_min >= self.value_max:
            yield f"value_min: {self.value_min}, must be below {self.value_max}"


class Network(nn.Module):
    """A net and its dueling head: stacked features -> logits (B, actions, atoms)."""

    support: Tensor

    def __init__(self, config: Config, net: Net, actions: int) -> None:
        super().__init__()
        self.net = net
        self.head = DuelingHead(net.width, config.hidden, actions, config.atoms, config.sigma)
        atoms = torch.linspace(config.value_min, config.value_max, config.atoms)
        self.register_buffer("support", atoms)
        self.gradient_scale = config.gradient_scale

    def forward(self, stack: Obs) -> Tensor:
        """The logits of stacks."""
        return self.logits(self.net(stack)[0])

    def logits(self, features: Tensor) -> Tensor:
        """Features (B, width) -> logits."""
        logits: Tensor = self.head(scale_gradient(features, self.gradient_scale))
        return logits

    def greedy(self, logits: Tensor) -> Tensor:
        """The actions (B,) of highest expected value."""
        return (logits.softmax(-1) @ self.support).argmax(-1)


class Agent:
    """Rainbow. It explores by noise alone; random actions (warm-up, ε) are the loop's."""

    def __init__(
        self, config: Config, core: FrameStack, *, actions: int, seed: int,
        device: torch.device | str,
    ) -> None:  # fmt: skip
        self.config, self.device = config, torch.device(device)
        self.policy = Network(config, core.net, actions).to(self.device)
        self.target = deepcopy(self.policy).requires_grad_(False)
        self.core = core.to(self.device)
        self.trained_parameters = list(self.policy.parameters())
        self.optimizer = torch.optim.Adam(
            self.trained_parameters, lr=config.learning_rate, eps=config.adam_epsilon, fused=True
        )
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.updates = 0
        self._loss: Callable[[Batch], tuple[Tensor, dict[str, Tensor]]] = self.loss
        resample_noise(self.policy, self.generator)

    def compile(self) -> None:
        """Compile the loss at the first update if that makes updates faster.

        On a CPU that takes up to a minute. Results differ by rounding.
        """
        if self.device.type == "cuda" or self.policy.net.faster_compiled:
            self._loss = Compiled(self.loss)

    @torch.inference_mode()
    def act(
        self, obs: Obs, state: State, first: Tensor, *, explore: bool
    ) -> tuple[Tensor, State, Extras]:
        """Greedy actions, with the current noise if `explore`, else without noise."""
        if self.policy.training is not explore:
            self.policy.train(explore)
        features, state, extras = self.core.step(obs, state, first)
        return self.policy.greedy(self.policy.logits(features)), state, extras

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One gradient step with new noise in both networks; scalars stay on the device."""
        size = (self.config.batch_size,)
        assert batch.action.shape == batch.reward.shape == batch.weight.shape == size
        if not self.policy.training:
            self.policy.train()
        resample_noise(self.policy, self.generator)
        resample_noise(self.target, self.generator)
        loss, scalars = self._loss(batch)
        set_gradients(loss, self.trained_parameters)
        norm = nn.utils.clip_grad_norm_(
            self.trained_parameters, self.config.gradient_norm, foreach=True
        )
        self.optimizer.step()
        self.updates += 1
        if self.updates % self.config.target_every == 0:
            self.target.load_state_dict(self.policy.state_dict())
        return scalars | {"loss": loss.detach(), "gradient_norm": norm}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted mean of KL(target ‖ prediction), and the scalars `priority` and `value`."""
        target = self.targets(batch)
        log_probability = _of_actions(self.policy(batch.obs), batch.action).log_softmax(-1)
        divergence = (torch.xlogy(target, target) - target * log_probability).sum(-1)
        assert divergence.shape == batch.weight.shape
        value = (log_probability.detach().exp() @ self.policy.support).mean()
        scalars = {"priority": divergence.detach(), "value": value}
        return (batch.weight * divergence).mean(), scalars

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """Double Q: the online network selects the next action, the target network evaluates it."""
        action = self.policy.greedy(self.policy(batch.next_obs))
        probability = _of_actions(self.target(batch.next_obs), action).softmax(-1)
        return project(probability, batch.reward, batch.discount, self.policy.support)

    def state_dict(self) -> dict[str, object]:
        """All state that the next update depends on."""
        return {
            "policy": self.policy.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, bit for bit."""
        self.policy.load_state_dict(state["policy"])
        self.target.load_state_dict(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.updates = state["updates"]


def _of_actions(logits: Tensor, action: Tensor) -> Tensor:
    """(B, actions, atoms) -> the rows of the actions taken, (B, atoms)."""
    index = action[:, None, None].expand(-1, 1, logits.shape[-1])
    return logits.gather(1, index)[:, 0]
