"""SAC: its density against integrals, its losses against plain implementations, and its sizes."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from scipy import integrate
from torch import Tensor, nn
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from pretrain.encoder import Obs
from rl.agents.sac import Config, TwinCritic, log_density
from rl.nets import deep_cnn, vector
from tests.rl import fakes
from tests.rl.point import ACTIONS, SMALL, make, random_batch


def log_prob(distribution: Any, value: Tensor) -> Tensor:
    """torch's log probability, whose method has no types."""
    density: Tensor = distribution.log_prob(value)
    return density


# The squashed Gaussian


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (1.5, -2.0), (-0.7, 1.0), (3.0, 0.5)])
def test_the_density_of_actions_integrates_to_one_and_gives_the_entropy(
    mean: float, log_std: float
) -> None:
    """By scipy, over the actions themselves: densities, their sum, and the mean of -log π."""

    def density(action: float) -> float:
        raw = torch.tensor([[math.atanh(action)]], dtype=torch.float64)
        moments = (torch.full((1, 1), each, dtype=torch.float64) for each in (mean, log_std))
        return math.exp(log_density(raw, *moments).item())

    edge = 1 - 1e-12
    total, error = integrate.quad(density, -edge, edge, limit=400, points=[math.tanh(mean)])
    assert total == pytest.approx(1, abs=1e-3 + error)
    torch.manual_seed(0)
    raw = mean + math.exp(log_std) * torch.randn(200_000, 1, dtype=torch.float64)
    entropy = -log_density(raw, torch.tensor(mean), torch.tensor(log_std)).mean().item()
    expected, _ = integrate.quad(
        lambda a: -density(a) * math.log(max(density(a), 1e-300)), -edge, edge, limit=400,
        points=[math.tanh(mean)],
    )  # fmt: skip
    assert entropy == pytest.approx(expected, abs=0.02)


def test_the_density_stays_finite_and_exact_far_out() -> None:
    """Where 1 - tanh² is 0 in float32: against float64 and its exact complement."""
    raw = torch.tensor([[0.0], [5.0], [12.0], [-30.0]])
    density = log_density(raw, torch.zeros(4, 1), torch.zeros(4, 1))
    wide = raw.double()
    normal = log_prob(Normal(0.0, 1.0), wide)
    complement = math.log(4) - 2 * wide.abs() - 2 * torch.log1p(torch.exp(-2 * wide.abs()))
    torch.testing.assert_close(density, (normal - complement)[:, 0].float(), rtol=1e-5, atol=1e-5)


def test_sampled_actions_have_torchs_log_probability() -> None:
    agent = make()
    features = torch.randn(8, 4)
    action, log_probability = agent.sample(features)
    mean, log_std = agent.policy(features)
    assert log_std.min() >= -10 and log_std.max() <= 2
    base = Normal(mean, log_std.exp())
    squashed = TransformedDistribution(base, [TanhTransform(cache_size=1)])
    expected = log_prob(squashed, action.clamp(-1 + 1e-6, 1 - 1e-6)).sum(-1)
    torch.testing.assert_close(log_probability, expected, atol=2e-2, rtol=1e-3)


def test_bounds_of_log_std_are_reached_by_tanh() -> None:
    agent = make()
    last = agent.policy.head[-1]
    assert isinstance(last, nn.Linear)
    for bias, bound in ((-50.0, -10.0), (50.0, 2.0), (0.0, -4.0)):
        with torch.no_grad():
            last.weight.zero_()
            last.bias.fill_(bias)
        torch.testing.assert_close(agent.policy(torch.zeros(1, 4))[1], torch.full((1, 2), bound))


# The update


def plain_critics(twin: TwinCritic) -> list[nn.Sequential]:
    """Two ordinary perceptrons with the same weights."""
    networks = []
    for number in range(2):
        layers: list[nn.Module] = []
        for weight, bias in zip(twin.weights, twin.biases, strict=True):
            layer = nn.Linear(*weight.shape[1:])
            layer.load_state_dict({"weight": weight[number].T, "bias": bias[number, 0]})
            layers += [layer, nn.ReLU()]
        networks.append(nn.Sequential(*layers[:-1]))
    return networks


def test_the_twin_critic_is_two_perceptrons() -> None:
    twin = TwinCritic(6, 16)
    features, action = torch.randn(5, 4), torch.randn(5, 2)
    both = torch.cat([features, action], -1)
    expected = torch.stack([critic(both)[:, 0] for critic in plain_critics(twin)])
    torch.testing.assert_close(twin(features, action), expected)
    one, other = twin.weights[1]
    assert not torch.equal(one, other)
    torch.testing.assert_close(one @ one.T, torch.eye(16))  # orthogonal


def test_an_update_is_adam_on_the_papers_losses() -> None:
    """Two updates, the second with actor, temperature and targets, repeated with torch's own parts:
    two perceptrons, distributions.Normal, a plain Adam each, and Polyak by hand.
    """
    agent = make()
    batches = [random_batch(seed=number) for number in range(2)]
    twin = make()
    critics, targets = plain_critics(twin.critic), plain_critics(twin.target)
    actor, log_alpha = deepcopy(twin.policy), torch.tensor(math.log(0.1), requires_grad=True)
    random = torch.Generator().manual_seed(0)
    adam = partial(torch.optim.Adam, lr=SMALL.learning_rate)
    critic_adams = [adam(critic.parameters()) for critic in critics]
    actor_adam, alpha_adam = adam(actor.parameters()), adam([log_alpha])

    def sample(obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = actor(obs)
        noise = torch.randn(mean.shape, generator=random)
        raw = mean + noise * log_std.exp()
        normal = log_prob(Normal(mean, log_std.exp()), raw)
        return raw.tanh(), (normal - torch.log(1 - raw.tanh() ** 2)).sum(1, keepdim=True)

    for number, batch in enumerate(batches, 1):
        scalars = agent.update(batch)
        obs, following = batch.obs["state"][:, 0], batch.next_obs["state"][:, 0]
        with torch.no_grad():
            action, log_pi = sample(following)
            smaller = torch.min(*(each(torch.cat([following, action], 1)) for each in targets))
            goal = batch.reward[:, None] + batch.discount[:, None] * (
                smaller - log_alpha.exp() * log_pi
            )
        losses = [
            nn.functional.mse_loss(each(torch.cat([obs, batch.action], 1)), goal)
            for each in critics
        ]
        torch.testing.assert_close(scalars["loss"], (losses[0] + losses[1]).detach())
        for loss, optimizer in zip(losses, critic_adams, strict=True):
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        assert ("actor_loss" in scalars) == (number == 2)
        if number == 2:
            action, log_pi = sample(obs)
            value = torch.min(*(each(torch.cat([obs, action], 1)) for each in critics))
            alpha = log_alpha.exp().item()
            actor_loss = (alpha * log_pi - value).mean()
            actor_adam.zero_grad()
            torch.autograd.backward(actor_loss)
            actor_adam.step()
            alpha_loss = (-log_alpha.exp() * (log_pi.detach() - ACTIONS)).mean()
            torch.autograd.backward(alpha_loss)
            alpha_adam.step()
            torch.testing.assert_close(scalars["actor_loss"], actor_loss.detach())
            assert scalars["temperature"].item() == pytest.approx(0.1)
            for old, new in zip(targets, critics, strict=True):
                for average, fresh in zip(old.parameters(), new.parameters(), strict=True):
                    average.data = 0.995 * average.data + 0.005 * fresh.data
    for ours, plain in ((agent.critic, critics), (agent.target, targets)):
        for each, expected in zip(plain_critics(ours), plain, strict=True):
            for one, other in zip(each.parameters(), expected.parameters(), strict=True):
                torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-4)
    for one, other in zip(agent.policy.parameters(), actor.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(agent.log_temperature, log_alpha)


def test_the_target_of_a_terminal_transition_is_its_reward() -> None:
    agent, batch = make(), random_batch()
    goal = agent.targets(replace(batch, discount=torch.zeros(8)))
    assert torch.equal(goal, batch.reward)


@pytest.mark.parametrize(("log_pi", "grows"), [(5.0, True), (-9.0, False)])
def test_the_temperature_grows_where_entropy_is_below_its_target(
    log_pi: float, grows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target is minus the number of actions: -2."""
    agent = make()
    real = agent.sample
    monkeypatch.setattr(agent, "sample", lambda f: (real(f)[0], real(f)[1] * 0 + log_pi))
    before = agent.log_temperature.item()
    for number in range(2):
        agent.update(random_batch(seed=number))
    assert (agent.log_temperature.item() > before) == grows


def test_a_trainable_net_learns_from_the_critics_loss_alone() -> None:
    """The net's step is the same with and without an update of the actor."""
    encoder = fakes.Pixels()
    obs = {"image": torch.randint(0, 256, (8, 1, 3, 25, 25), dtype=torch.uint8)}
    states = []
    for every in (1, 1_000):
        config = replace(SMALL, actor_every=every)
        net = deep_cnn.Config(layers=3, filters=4, width=8)
        agent = make(config, encoder, net=net)
        before = [p.clone() for p in agent.policy.net.parameters()]
        agent.update(random_batch(obs=obs))
        after = list(agent.policy.net.parameters())
        assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))
        states.append(after)
    assert all(torch.equal(*pair) for pair in zip(*states, strict=True))


# Sizes and nets


class Latents(fakes.Fake):
    """ViSaRL's frozen features: one pooled token of 256 numbers."""

    image_shape, max_tokens, dim = (3, 64, 64), 1, 256
    kind = "vector"

    def forward(self, image: Tensor) -> Obs:
        size = len(image)
        mask, pos = torch.ones(size, 1).bool(), torch.zeros(size, 1, dtype=torch.int64)
        return {"x": torch.zeros(size, 1, 256), "mask": mask, "pos": pos}


class Pixels(fakes.Pixels):
    image_shape = (3, 64, 64)


@pytest.mark.parametrize(
    ("encoder", "actor", "critics"),
    [(Latents(), 1_320_968, 2_635_778), (Pixels(), 1_583_112, 3_160_066)],
)
def test_parameter_counts(encoder: Any, actor: int, critics: int) -> None:
    agent = make(Config(), encoder, actions=4)
    assert sum(p.numel() for p in agent.policy.head.parameters()) == actor
    assert sum(p.numel() for p in agent.critic.parameters()) == critics


def test_the_eleven_convolutions() -> None:
    """64 pixels give 3,872 numbers; the initial convolutions are orthogonal maps of
    single pixels.
    """
    torch.manual_seed(0)
    net = deep_cnn.Net(deep_cnn.Config(), {"image": torch.zeros(1, 3, 64, 64)}, 1)
    assert sum(p.numel() for p in net.parameters()) == 2_077_376
    linear = net.project[0]
    assert isinstance(linear, nn.Linear) and linear.in_features == 3_872
    layers = [layer for layer in net.convolutions if isinstance(layer, nn.Conv2d)]
    assert len(layers) == 11 and [layer.stride for layer in layers] == [(2, 2)] + 10 * [(1, 1)]
    for layer in layers[1:]:
        middle = layer.weight[:, :, 1, 1]
        torch.testing.assert_close(middle @ middle.T, 2 * torch.eye(32), atol=1e-4, rtol=0)
        assert layer.weight.count_nonzero() == middle.count_nonzero()
    assert isinstance(net.convolutions[-1], nn.Conv2d), "no ReLU after the last"
    four = {"image": torch.randint(0, 256, (2, 1, 4, 64, 64), dtype=torch.uint8)}
    wide = deep_cnn.Net(deep_cnn.Config(), {"image": four["image"][:1, 0]}, 1)
    vectors, _ = wide(four)
    assert vectors.shape == (2, 512) and vectors.abs().max() <= 1
    scaled = wide.project(wide.convolutions(four["image"][:, 0] / 255).flatten(1))
    torch.testing.assert_close(vectors, scaled)


def test_images_too_small_for_the_convolutions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image: 32x32.*net\.layers"):
        deep_cnn.Net(deep_cnn.Config(), {"image": torch.zeros(1, 3, 32, 32)}, 1)


@pytest.mark.parametrize(("key", "shape"), [("x", (2, 3, 1, 4)), ("state", (2, 3, 4))])
def test_a_vector_is_the_stacked_frames_one_after_the_other(
    key: str, shape: tuple[int, ...]
) -> None:
    stack = torch.randn(shape)
    net = vector.Net(vector.Config(), {key: stack[:, 0]}, 3)
    vectors, _ = net({key: stack})
    assert net.width == 12 and vectors.shape == (2, 12)
    for s in range(3):
        assert torch.equal(vectors[:, 4 * s : 4 * s + 4], stack[:, s].reshape(2, 4))
