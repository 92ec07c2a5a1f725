"""Data-efficient Rainbow, the learner of SPIRL.

Hessel et al., "Rainbow" (2018): double Q, dueling streams, noisy layers, C51, n-step returns and
prioritised replay; van Hasselt et al. (2019) for the data-efficient setting; SPIRL's Tables 9 and
10 for the numbers here. The 100K setting is the default; 400K has steps 400,000, replay_capacity
400,000 and update_every 4.

The noise σ of a bias starts at σ0/√inputs, as that of a weight does (Fortunato et al.). The target
network draws noise of its own at each update.

645,093 parameters on SPIRL's aggregator with 18 actions, 409,167 with 9 (the 51 atoms are counted,
as a parameter without gradient); 1,149,861 on the data-efficient CNN. Expect from SPIRL's features
after 100K steps (its Table 2, mean and deviation of 5 trials): Frostbite 670 (732), MsPacman 904
(286), Seaquest 558 (148), BattleZone 11980 (3827); from pixels what data_efficient_cnn.py says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pretrain.encoder import Obs
from rl.agent import Batch, State, push
from rl.compiled import Compiled
from rl.layers import DuelingHead, resample_noise, scale_gradient, set_gradients
from rl.net import Net
from rl.returns import project

ACTIONS = "discrete"
# kind of features -> net
NETS = {"tokens": "tokens", "vector": "tokens", "pixels": "data_efficient_cnn"}


@dataclass(frozen=True)
class Config:
    """SPIRL, Tables 9 and 10; what they leave out is Rainbow's."""

    steps: int = 100_000  # environment steps
    learn_start: int = 1_600  # uniform random actions until then
    update_every: int = 1  # environment steps an update
    replay_capacity: int = 100_000
    batch_size: int = 32
    stack: int = 4
    n_step: int = 20
    gamma: float = 0.99
    atoms: int = 51
    value_min: float = -10.0
    value_max: float = 10.0
    hidden: int = 256
    sigma: float = 0.5
    learning_rate: float = 1e-4
    adam_epsilon: float = 1.5e-4
    gradient_norm: float = 10.0
    gradient_scale: float = 0.5**0.5  # into the net below the two streams
    target_every: int = 2_000  # updates between hard copies
    priority_exponent: float = 0.5
    priority_weight: float = 0.4  # β at the start, 1 at the end

    rewards: ClassVar[str] = "sign"

    def __post_init__(self) -> None:
        for name in ("steps", "update_every", "replay_capacity", "batch_size", "stack", "n_step",
                     "hidden", "target_every"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}, must be at least 1")
        for name in ("gamma", "priority_exponent", "priority_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)}, must be between 0 and 1")
        for name in ("learning_rate", "adam_epsilon", "gradient_norm", "gradient_scale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: {getattr(self, name)}, must be above 0")
        if self.atoms < 2:
            raise ValueError(f"atoms: {self.atoms}, must be at least 2")
        if self.sigma < 0:
            raise ValueError(f"sigma: {self.sigma}, must not be negative")
        if self.value_min >= self.value_max:
            raise ValueError(f"value_min: {self.value_min}, must be below {self.value_max}")
        if self.learn_start <= self.n_step:
            raise ValueError(f"learn_start: {self.learn_start}, must exceed n_step {self.n_step}")
        if self.learn_start >= self.steps:  # or it would never learn
            raise ValueError(f"learn_start: {self.learn_start}, must be below steps {self.steps}")
        if self.replay_capacity < self.n_step + self.stack:
            raise ValueError(
                f"replay_capacity: {self.replay_capacity}, must hold n_step + stack rows"
            )


class Network(nn.Module):
    """A net and its dueling head: stacked features to logits (B, actions, atoms)."""

    def __init__(self, config: Config, net: Net, actions: int) -> None:
        super().__init__()
        self.net = net
        self.head = DuelingHead(net.width, config.hidden, actions, config.atoms, config.sigma)
        atoms = torch.linspace(config.value_min, config.value_max, config.atoms)
        self.support = nn.Parameter(atoms, requires_grad=False)
        self.gradient_scale = config.gradient_scale

    def forward(self, stack: Obs) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits and the net's extras."""
        features, extras = self.net(stack)
        return self.head(scale_gradient(features, self.gradient_scale)), extras

    def greedy(self, logits: Tensor) -> Tensor:
        """The action (B,) of highest expected value."""
        return (logits.softmax(-1) @ self.support).argmax(-1)


class Learner(nn.Module):
    """Policy and target network as one module whose value is the loss: `torch.func` can put other
    weights in their places, those of many seeds at once (rl/seeds.py).
    """

    def __init__(self, policy: Network) -> None:
        super().__init__()
        self.policy = policy
        self.target = deepcopy(policy).requires_grad_(False)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean KL(target ‖ prediction), weighted, and `priority` (B,) and `value` beside it."""
        goal = self.targets(batch)
        logits, _ = self.policy(batch.obs)
        log_probability = _chosen(logits, batch.action).log_softmax(-1)
        divergence = (torch.xlogy(goal, goal) - goal * log_probability).sum(-1)
        assert divergence.shape == batch.weight.shape
        value = (log_probability.detach().exp() @ self.policy.support).mean()
        told = {"priority": divergence.detach(), "value": value}
        return (batch.weight * divergence).mean(), told

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """Double Q: the online network picks the next action, the target network rates it."""
        action = self.policy.greedy(self.policy(batch.next_obs)[0])
        probability = _chosen(self.target(batch.next_obs)[0], action).softmax(-1)
        return project(probability, batch.reward, batch.discount, self.policy.support)


class Agent:
    """Rainbow. Noise is its only exploration: random actions (warm-up, ε) are the loop's."""

    def __init__(
        self, config: Config, net: Net, *, actions: int, seed: int, device: torch.device | str
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.learner = Learner(Network(config, net, actions)).to(self.device)
        self.policy, self.target = self.learner.policy, self.learner.target
        self.weights = self.learner.state_dict(keep_vars=True)  # and the noise
        self.trained = {k: w for k, w in self.weights.items() if w.requires_grad}
        self.optimizer = self.optimizer_of(self.trained.values())
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.updates = 0
        self.compiled = False
        self._learn: Callable[[Batch], tuple[Tensor, dict[str, Tensor]]] = self.learner
        resample_noise(self.policy, self.generator)

    def compile(self) -> None:
        """Have torch compile loss and gradients at the first update, if that makes it faster.

        On a CPU that takes up to a minute. Results differ by rounding.
        """
        if self.device.type == "cuda" or self.policy.net.gains_compiled:
            self.compiled, self._learn = True, Compiled(self.learner)

    def optimizer_of(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Adam as the config has it."""
        rate, epsilon = self.config.learning_rate, self.config.adam_epsilon
        return torch.optim.Adam(parameters, lr=rate, eps=epsilon, fused=True)

    @torch.inference_mode()
    def act(
        self, obs: Obs, state: State | None, first: Tensor, *, explore: bool
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """Greedy actions, with the present noise where `explore`, else without any."""
        state = push(obs, state, first, self.config.stack)
        if self.policy.training is not explore:
            self.policy.train(explore)
        logits, extras = self.policy(state)
        return self.greedy(logits), state, extras

    def greedy(self, logits: Tensor) -> Tensor:
        """The policy's choice."""
        return self.policy.greedy(logits)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One gradient step; scalars stay on the device."""
        size = (self.config.batch_size,)
        assert batch.action.shape == batch.reward.shape == batch.weight.shape == size
        self.prepare()
        loss, told = self._learn(batch)
        trained = list(self.trained.values())
        set_gradients(loss, trained)
        norm = nn.utils.clip_grad_norm_(trained, self.config.gradient_norm, foreach=True)
        self.optimizer.step()
        self.conclude()
        return told | {"loss": loss.detach(), "gradient_norm": norm}

    def prepare(self) -> None:
        """What an update begins with: new noise in both networks."""
        if not self.policy.training:
            self.policy.train()
        resample_noise(self.policy, self.generator)
        resample_noise(self.target, self.generator)

    def conclude(self) -> None:
        """What it ends with: now and then the target network becomes the online one."""
        self.updates += 1
        if self.updates % self.config.target_every == 0:
            self.target.load_state_dict(self.policy.state_dict())

    def state_dict(self) -> dict[str, object]:
        """Everything that the next update depends on."""
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


def _chosen(logits: Tensor, action: Tensor) -> Tensor:
    """(B, actions, atoms) to the rows of the actions taken, (B, atoms)."""
    index = action[:, None, None].expand(-1, 1, logits.shape[-1])
    return logits.gather(1, index)[:, 0]
