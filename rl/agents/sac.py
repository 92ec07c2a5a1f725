"""Soft Actor-Critic, the learner of ViSaRL.

Haarnoja et al., "Soft Actor-Critic Algorithms and Applications" (2018): twin critics, a squashed
Gaussian actor and a learned temperature. The settings are those of ViSaRL (Liang et al. 2024, App.
F) and, where it gives none, of its released code: log σ between its bounds by a tanh, actor and
targets at every second update, orthogonal weights, raw rewards (0 to 10 on Meta-World), 500-step
episodes that are truncated and never terminated.

The network is the released code's too: two hidden layers on the latents themselves. App. F says
three, after a normalised projection to 100.

Differs from the released code:
- Replay gives (s, a, r, s') of one step; theirs pairs s with the action and reward after it.
- There is one update a step from `learn_start` on; theirs makes 1,000 updates at that step.
- The actor uses the features from which the critic's loss was computed, not those of the updated
  net, which saves a pass of the convolutions. For frozen features there is no difference.
- log π is exact for any action; theirs adds 1e-6 inside the logarithm.

Several tokens a frame (the paper takes their mean) go through SPIRL's aggregator, nets/tokens.py. A
trainable net learns from the critic's loss alone, and also encodes the next observation: there is
no target net. On frozen 256-d features with 4 actions: actor 1,320,968 parameters, critics
2,635,778. Expect after 1M steps (Table I, mean success of 3 seeds of 50 episodes) the scores in the
encoder's file. On reach's state, 200,000 steps at `hidden: 256, learning_rate: 3e-4` reached 0.94
here (recipe visarl-state, three seeds of 50 episodes: 1.00, 0.86, 0.96; docs/reach-state.svg).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.checked import Count, Fraction, Positive, Width
from pretrain.encoder import Obs
from rl.agent import Batch, OffPolicyConfig
from rl.layers import set_gradients
from rl.net import Extras, Net, State
from rl.stack import FrameStack

ACTIONS = "continuous"
# kind of features -> net
NETS = {
    "tokens": "tokens",
    "vector": "vector",
    "state": "vector",
    "pixels": "deep_cnn",
    "masked": "deep_cnn",
}


@dataclass(frozen=True)
class Config(OffPolicyConfig):
    """ViSaRL, Appendix F."""

    steps: Count = 1_000_000
    learn_start: Count = 1_000
    update_every: Count = 1
    replay_capacity: Count = 1_000_000
    batch_size: Count = 128
    stack: Count = 1
    n_step: Count = 1
    gamma: Fraction = 0.99
    hidden: Width = 1024  # units of each of the two hidden layers
    learning_rate: Positive = 1e-4  # of actor, critics and temperature
    temperature: Positive = 0.1  # α at the start
    log_std: tuple[float, float] = (-10.0, 2.0)  # bounds of log σ
    tau: Fraction = 0.005  # share of the online critics in the targets' running average
    actor_every: Count = 2  # updates between those of actor and temperature
    target_every: Count = 2  # updates between those of the targets

    def rules(self) -> Iterator[str]:
        """The bounds of log σ are in order."""
        yield from super().rules()
        if len(self.log_std) != 2 or self.log_std[0] >= self.log_std[1]:
            yield f"log_std: {self.log_std}, must be a lower and a higher bound"


class Actor(nn.Module):
    """A net, and a head on its features (B, width): a squashed Gaussian policy."""

    def __init__(self, config: Config, net: Net, actions: int) -> None:
        super().__init__()
        self.low, self.high = config.log_std
        self.net = net
        self.head = nn.Sequential(
            nn.Linear(net.width, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, 2 * actions),
        )
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ, (B, actions) each, before squashing."""
        mean, log_std = self.head(features).chunk(2, dim=-1)
        return mean, self.low + (self.high - self.low) / 2 * (log_std.tanh() + 1)


class TwinCritic(nn.Module):
    """Two critics in one: every layer is a batched product, (2, B, in) with (2, in, out)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        sizes = [(inputs, hidden), (hidden, hidden), (hidden, 1)]
        self.weights = nn.ParameterList(torch.empty(2, *size) for size in sizes)
        self.biases = nn.ParameterList(torch.zeros(2, 1, size[1]) for size in sizes)
        for weight in self.weights:
            for critic in weight.data:
                nn.init.orthogonal_(critic)

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Q (2, B) of features (B, width) and actions (B, A)."""
        x = torch.cat([features, action], dim=-1).expand(2, -1, -1)
        first, second, last = zip(self.weights, self.biases, strict=True)
        for weight, bias in (first, second):
            x = torch.baddbmm(bias, x, weight).relu()
        return torch.baddbmm(last[1], x, last[0])[..., 0]


class Agent:
    """SAC. It explores by the actor's noise; random actions (warm-up, ε) are the loop's."""

    def __init__(
        self, config: Config, core: FrameStack, *, actions: int, seed: int,
        device: torch.device | str,
    ) -> None:  # fmt: skip
        self.config, self.device = config, torch.device(device)
        self.policy = Actor(config, core.net, actions).to(self.device)
        self.core = core.to(self.device)
        self.critic = TwinCritic(core.width + actions, config.hidden).to(self.device)
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.log_temperature = torch.tensor(
            math.log(config.temperature), device=self.device, requires_grad=True
        )
        self.target_entropy = -float(actions)
        self.trained_parameters: dict[str, list[Tensor]] = {
            "critic": [
                *self.critic.parameters(),
                *(p for p in self.policy.net.parameters() if p.requires_grad),
            ],
            "actor": [*self.policy.head.parameters()],
            "temperature": [self.log_temperature],
        }
        self.optimizers = {
            name: torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
            for name, parameters in self.trained_parameters.items()
        }
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.updates = 0

    @torch.inference_mode()
    def act(
        self, obs: Obs, state: State, first: Tensor, *, explore: bool
    ) -> tuple[Tensor, State, Extras]:
        """Actions (B, A) in [-1, 1]: sampled if `explore`, else tanh μ."""
        features, state, extras = self.core.step(obs, state, first)
        if explore:
            return self.sample(features)[0], state, extras
        return self.policy(features)[0].tanh(), state, extras

    def sample(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (B, A) sampled from the current policy, and log π (B,) of each."""
        mean, log_std = self.policy(features)
        noise = torch.randn(mean.shape, generator=self.generator, device=self.device)
        raw = mean + log_std.exp() * noise
        return raw.tanh(), log_density(raw, mean, log_std)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the critics, and at every few updates of actor, temperature and targets."""
        size = (self.config.batch_size,)
        assert batch.reward.shape == batch.discount.shape == batch.action.shape[:1] == size
        self.updates += 1
        features, _ = self.policy.net(batch.obs)
        values = self.critic(features, batch.action)
        target = self.targets(batch)
        assert values.shape == (2, *size) and target.shape == size
        loss = (values - target).square().mean(1).sum()
        self._step("critic", loss)
        scalars = {"loss": loss.detach(), "value": values.detach().mean()}
        if self.updates % self.config.actor_every == 0:
            scalars |= self._update_actor(features.detach())
        if self.updates % self.config.target_every == 0:
            targets: list[Tensor] = [*self.target.parameters()]
            online: list[Tensor] = [parameter.detach() for parameter in self.critic.parameters()]
            torch._foreach_lerp_(targets, online, self.config.tau)
        return scalars

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """r + γ (min Q'(s', a') - α log π(a'|s')) (B,), with a' sampled from the current policy."""
        features, _ = self.policy.net(batch.next_obs)
        action, log_probability = self.sample(features)
        following: Tensor = self.target(features, action).amin(0)
        following = following - self.log_temperature.exp() * log_probability
        return batch.reward + batch.discount * following

    def _update_actor(self, features: Tensor) -> dict[str, Tensor]:
        """A step down α log π - min Q, and a step of α towards the target entropy."""
        temperature = self.log_temperature.detach().exp()
        action, log_probability = self.sample(features)
        value = self.critic(features, action).amin(0)
        assert value.shape == log_probability.shape
        loss = (temperature * log_probability - value).mean()
        self._step("actor", loss)
        entropy = -log_probability.detach().mean()
        self._step("temperature", self.log_temperature.exp() * (entropy - self.target_entropy))
        return {"actor_loss": loss.detach(), "entropy": entropy, "temperature": temperature}

    def _step(self, name: str, loss: Tensor) -> None:
        set_gradients(loss, self.trained_parameters[name])
        self.optimizers[name].step()

    def state_dict(self) -> dict[str, object]:
        """All state that the next update depends on."""
        return {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "target": self.target.state_dict(),
            "log_temperature": self.log_temperature.detach(),
            "optimizers": {name: each.state_dict() for name, each in self.optimizers.items()},
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, bit for bit."""
        for name in ("policy", "critic", "target"):
            getattr(self, name).load_state_dict(state[name])
        with torch.no_grad():
            self.log_temperature.copy_(state["log_temperature"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.generator.set_state(state["generator"].cpu())
        self.updates = state["updates"]


def log_density(raw: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log π (B,) of tanh(raw), raw ~ N(mean, σ²), all (B, A).

    It is the Gaussian's less log(1 - tanh²) of each component. The latter is computed as
    2 (log 2 - x - softplus(-2x)), without differences of nearly equal numbers for any x.
    """
    score = (raw - mean) / log_std.exp()
    gaussian = -0.5 * score.square() - log_std - 0.5 * math.log(2 * math.pi)
    correction = 2 * (math.log(2) - raw - F.softplus(-2 * raw))
    return (gaussian - correction).sum(-1)
