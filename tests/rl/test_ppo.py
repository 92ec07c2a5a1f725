"""PPO's objective against loops, and its minibatches against their rollout."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from rl.actor_critic import actor_critic_loss, entropy, log_prob_of
from rl.agent import Rollout
from rl.agents import a2c, rainbow, sac
from rl.agents.ppo import Agent, Config, Samples, clipped_loss, clipped_value_loss, standardise
from rl.net import Core
from rl.returns import gae
from tests.rl import fakes

SMALL = Config(steps=960, num_envs=3, unroll=8, stack=2, minibatches=4, precision="float32")


def rollout(agent: Any, seed: int = 0) -> Rollout:
    """Random frames, actions, rewards and ends; log π and V are the agent's own."""
    steps, envs = agent.config.unroll, agent.config.num_envs
    generator = torch.Generator().manual_seed(seed)
    shape = (steps * envs, 3, fakes.SIZE, fakes.SIZE)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    obs = {k: v.view(steps, envs, *v.shape[1:]) for k, v in fakes.Tokens()(images).items()}
    first = torch.rand(steps, envs, generator=generator) < 0.2
    action = torch.randint(3, (steps, envs), generator=generator)
    state = agent.core.initial(envs)
    with torch.no_grad():
        log_policy, value, _, _ = agent.policy(obs, state, first)
    return Rollout(
        obs=obs,
        first=first,
        state=state,
        action=action,
        reward=torch.randn(steps, envs, generator=generator),
        discount=0.9 * (torch.rand(steps, envs, generator=generator) > 0.2),
        log_prob=log_prob_of(log_policy, action),
        value=value,
        last_value=torch.randn(envs, generator=generator),
    )


def make(config: Config = SMALL) -> Agent:
    return cast(Agent, fakes.policy(config, agent="ppo").agent)


@pytest.mark.parametrize("clip", [0.1, 0.3])
def test_the_clipped_objective_is_a_loop_over_samples(clip: float) -> None:
    torch.manual_seed(0)
    ratio, advantage = (torch.randn(50) / 4).exp(), torch.randn(50)
    total = 0.0
    for r, a in zip(ratio.tolist(), advantage.tolist(), strict=True):
        clipped = min(max(r, 1 - clip), 1 + clip)
        total += min(r * a, clipped * a)
    assert clipped_loss(ratio, advantage, clip).item() == pytest.approx(-total / 50, abs=1e-6)


def test_the_clipped_value_loss_is_a_loop_over_samples() -> None:
    torch.manual_seed(0)
    value, old, target = torch.randn(3, 50)
    total = 0.0
    for v, o, t in zip(value.tolist(), old.tolist(), target.tolist(), strict=True):
        clipped = o + min(max(v - o, -0.1), 0.1)
        total += max((v - t) ** 2, (clipped - t) ** 2)
    loss = clipped_value_loss(value, old, target, 0.1).item()
    assert loss == pytest.approx(total / 100, abs=1e-6)


def test_without_clipping_the_gradient_is_the_policy_gradient() -> None:
    """For the policy that acted every ratio is 1."""
    torch.manual_seed(0)
    log_prob, advantage = torch.randn(40, requires_grad=True), torch.randn(40)
    loss = clipped_loss((log_prob - log_prob.detach()).exp(), advantage, 0.1)
    (gradient,) = torch.autograd.grad(loss, log_prob)
    torch.testing.assert_close(gradient, -advantage / 40)


def test_the_loss_is_its_three_parts_weighted() -> None:
    agent = make()
    samples = agent.samples(rollout(agent))
    log_policy, value, _, _ = agent.policy(samples.obs, samples.state, samples.first)
    loss, scalars = agent.loss(samples, log_policy, value)
    advantage = samples.advantage
    scaled = (advantage - advantage.mean()) / advantage.std(correction=0)
    torch.testing.assert_close(standardise(advantage), scaled)
    probabilities = log_policy.exp()
    uncertainty = -(probabilities * probabilities.log()).sum(-1).mean()
    squared = (value - advantage - samples.value).square()  # at the values that acted
    expected = -scaled.mean() + 0.5 * 0.5 * squared.mean() - 0.01 * uncertainty
    torch.testing.assert_close(loss, expected)
    assert scalars["clipped"] == 0 and scalars["entropy"] == pytest.approx(math.log(3), abs=1e-3)


def test_single_transitions_are_as_in_the_rollout() -> None:
    """Each has the frames before it: the network's output is that of acting."""
    agent = make()
    whole = rollout(agent)
    samples = agent.samples(whole)
    index = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    rows = samples.rows(index)
    with torch.no_grad():
        log_policy, value, _, _ = agent.policy(rows.obs, rows.state, rows.first)
    torch.testing.assert_close(value, whole.value.view(1, -1)[:, index])
    log_prob = whole.log_prob.view(1, -1)[:, index]
    torch.testing.assert_close(log_prob_of(log_policy, rows.action), log_prob)
    advantage = gae(whole.reward, whole.discount, whole.value, whole.last_value, 0.95)
    assert torch.equal(rows.advantage, advantage.view(1, -1)[:, index])


def test_every_transition_is_in_one_minibatch_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(replace(SMALL, epochs=3))
    updates: list[Tensor] = []

    def step(batch: Samples) -> dict[str, Tensor]:
        updates.append(batch.advantage[0])
        return {"loss": torch.zeros(())}

    monkeypatch.setattr(agent, "_step", step)
    whole = rollout(agent)
    agent.update(whole)
    advantage = gae(whole.reward, whole.discount, whole.value, whole.last_value, 0.95).flatten()
    assert [len(part) for part in updates] == [6] * 12
    epochs = [torch.cat(updates[start : start + 4]) for start in (0, 4, 8)]
    for epoch in epochs:
        assert torch.equal(epoch.sort().values, advantage.sort().values)
    assert not torch.equal(epochs[0], epochs[1])


def test_the_learning_rate_falls_linearly_to_zero() -> None:
    agent = make(replace(SMALL, steps=240))  # ten updates
    rates = []
    for _ in range(10):
        agent.update(rollout(agent))
        rates.append(agent.optimizer.param_groups[0]["lr"])
    expected = torch.tensor([2.5e-4 * (1 - number / 10) for number in range(10)])
    torch.testing.assert_close(torch.tensor(rates), expected)


def test_a2cs_loss_is_a_loop_over_the_rollout() -> None:
    config = a2c.Config(steps=960, num_envs=3, unroll=8, stack=2, precision="float32")
    agent: Any = fakes.policy(config, agent="a2c").agent
    whole = rollout(agent)
    log_policy, value, _, _ = agent.policy(whole.obs, whole.state, whole.first)
    loss, scalars = actor_critic_loss(whole, log_policy, value, config)
    total = 0.0
    for env in range(3):
        returns = float(whole.last_value[env])
        for t in reversed(range(8)):
            returns = float(whole.reward[t, env]) + float(whole.discount[t, env]) * returns
            advantage = returns - float(value[t, env])
            row = log_policy[t, env]
            uncertainty = -float((row.exp() * row).sum())
            total -= advantage * float(row[whole.action[t, env]])
            total += 0.5 * advantage**2 - 0.01 * uncertainty
    assert loss.item() == pytest.approx(total / 24, rel=1e-4)
    assert scalars["loss"] == loss.detach() and scalars["entropy"] == entropy(log_policy).mean()


class Remembering(Core):
    """A core that is no stack of frames."""

    width = 4


def test_minibatches_of_whole_environments_are_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    core, message = Remembering(), r"minibatches: 4, must divide num_envs \(3\) for a net with"
    assert not list(SMALL.misfits(make().core))
    assert not list(replace(SMALL, minibatches=3).misfits(core))
    monkeypatch.setattr("rl.nets.make", lambda *_: core)
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("agent", ["rainbow", "sac"])
def test_agents_with_replay_refuse_memories_and_auxiliary_losses(
    agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: dict[str, Any] = {"rainbow": rainbow.Config, "sac": sac.Config}
    core, config = Remembering(), configs[agent]()
    core.has_auxiliary = True
    monkeypatch.setattr("rl.nets.make", lambda *_: core)
    with pytest.raises(ValueError, match=r"net: has a memory.*\nnet: has a loss"):
        fakes.policy(config, agent=agent)


def test_the_heads_are_not_rounded_to_bfloat16() -> None:
    """Else values around 25 are multiples of 1/8."""
    agent = make()
    torch.nn.init.constant_(agent.policy.critic.bias, 25.0)
    steps = rollout(agent)
    with torch.autocast("cpu", torch.bfloat16):
        log_policy, value, _, _ = agent.policy(steps.obs, steps.state, steps.first)
    assert len(value.unique()) == value.numel()
    assert log_policy.exp().sum(-1).sub(1).abs().max() < 1e-5
