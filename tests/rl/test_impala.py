"""IMPALA's loss against a loop, its groups against one batch, and TensorFlow's RMSProp."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from rl import on_policy
from rl.actor_critic import log_prob_of
from rl.agent import Rollout
from rl.agents.impala import Config, groups, vtrace_loss
from rl.nets import impala_resnet
from rl.returns import vtrace
from rl.rmsprop import RMSprop
from tests.rl import fakes
from tests.rl.test_ppo import rollout

SMALL = Config(steps=960, num_envs=6, unroll=5, stack=2, precision="float32")


def make(config: Config = SMALL) -> Any:
    return fakes.policy(config, agent="impala").agent


def off_policy(agent: Any) -> Rollout:
    """A rollout that another policy acted in, so that ratios are not 1."""
    whole = rollout(agent)
    shift = torch.randn(whole.log_prob.shape, generator=torch.Generator().manual_seed(5)) / 2
    return replace(whole, log_prob=whole.log_prob + shift)


def test_the_loss_is_a_loop_over_the_rollout() -> None:
    """V-trace's targets as in equation 1's recursion, everything summed up."""
    agent = make()
    whole = off_policy(agent)
    log_policy, value, _, _ = agent.policy(whole.obs, whole.state, whole.first)
    loss, scalars = vtrace_loss(whole, log_policy, value, SMALL)
    table, values = log_policy.tolist(), value.tolist()
    total, clipped = 0.0, 0
    for env in range(6):
        last = float(whole.last_value[env])
        following, target = last, last
        for t in reversed(range(5)):
            row, action = table[t][env], int(whole.action[t, env])
            ratio = math.exp(row[action] - float(whole.log_prob[t, env]))
            clipped += ratio > 1
            ratio = min(1.0, ratio)
            reward, discount = float(whole.reward[t, env]), float(whole.discount[t, env])
            v = values[t][env]
            advantage = ratio * (reward + discount * target - v)
            error = ratio * (reward + discount * following - v)
            target = v + error + discount * ratio * (target - following)
            following = v
            uncertainty = -sum(math.exp(each) * each for each in row)
            total += -advantage * row[action] + 0.25 * (target - v) ** 2 - 0.01 * uncertainty
    assert 5 < clipped < 25
    assert loss.item() == pytest.approx(total, rel=1e-4)
    assert scalars["loss"] == loss.detach()


def test_targets_and_advantages_are_constants() -> None:
    """The gradient to V is that of its own error, that to log π the advantage of the action."""
    agent = make()
    whole = off_policy(agent)
    with torch.no_grad():
        log_policy, value, _, _ = agent.policy(whole.obs, whole.state, whole.first)
    log_ratio = log_prob_of(log_policy, whole.action) - whole.log_prob
    target, advantage = vtrace(whole.reward, whole.discount, value, whole.last_value, log_ratio)
    inputs = [log_policy.requires_grad_(), value.requires_grad_()]
    loss, _ = vtrace_loss(whole, log_policy, value, replace(SMALL, entropy_weight=0.0))
    of_policy, of_value = torch.autograd.grad(loss, inputs)
    torch.testing.assert_close(of_value, 0.5 * (value - target))
    torch.testing.assert_close(of_policy.sum(-1), -advantage)
    torch.testing.assert_close(log_prob_of(of_policy, whole.action), -advantage)


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("size", [1, 4, 6])
def test_groups_of_environments_are_one_batch(
    size: int, memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient, the weights after a step, and what is logged; with a state too."""
    agents = [make(replace(SMALL, group=each)) for each in (size, 100)]
    if memory:
        monkeypatch.setattr(fakes.Chain, "size", fakes.LARGE)
        config = replace(SMALL, unroll=3, steps=180)
        agents = [
            fakes.policy(
                replace(config, group=each),
                fakes.LargePixels(),
                agent="impala",
                net=impala_resnet.Config(lstm=True),
            ).agent
            for each in (size, 100)
        ]
    whole = pixels(agents[0]) if memory else off_policy(agents[0])
    logged = [agent.update(whole) for agent in agents]
    for ours, theirs in zip(*(agent.policy.parameters() for agent in agents), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    for name, each in logged[0].items():
        torch.testing.assert_close(each, logged[1][name], atol=1e-5, rtol=1e-4)


def pixels(agent: Any) -> Rollout:
    """A rollout on frames, with the last action and reward, and a memory that is not zero."""
    generator = torch.Generator().manual_seed(3)
    shape = agent.config.unroll, agent.config.num_envs
    side = fakes.LARGE
    image = torch.randint(256, (*shape, 3, side, side), generator=generator, dtype=torch.uint8)
    action = torch.randint(3, shape, generator=generator)
    state = agent.core.initial(shape[1])
    memories = {key: torch.randn(each.shape, generator=generator) for key, each in state.items()}
    return Rollout(
        obs={"image": image, "action": action, "reward": torch.randn(shape, generator=generator)},
        first=torch.rand(shape, generator=generator) < 0.2,
        state={key: memories[key].to(each.dtype) for key, each in state.items()},
        action=action,
        reward=torch.randn(shape, generator=generator),
        discount=torch.full(shape, 0.9),
        log_prob=torch.full(shape, -1.1),
        value=torch.zeros(shape),
        last_value=torch.randn(shape[1], generator=generator),
    )


def test_groups_take_every_environment_once() -> None:
    whole = off_policy(make())
    parts = list(groups(whole, 4))
    assert [part.reward.shape for part in parts] == [(5, 4), (5, 2)]
    for part in fields(whole):
        value = getattr(whole, part.name)
        for key in value if isinstance(value, dict) else [None]:
            pieces = [getattr(each, part.name) for each in parts]
            pieces = pieces if key is None else [piece[key] for piece in pieces]
            axis = 0 if part.name in ("state", "last_value") else 1
            assert torch.equal(torch.cat(pieces, dim=axis), value if key is None else value[key])


def test_the_gradient_is_clipped_by_its_global_norm() -> None:
    agent = make(replace(SMALL, gradient_norm=0.5))
    norm = agent.update(off_policy(agent))["gradient_norm"]
    clipped = torch.stack([each.grad.norm() for each in agent.policy.parameters()]).norm()
    assert norm > 1 and clipped.item() == pytest.approx(0.5, rel=1e-3)
    agent = make(replace(SMALL, gradient_norm=1e9))
    norm = agent.update(off_policy(agent))["gradient_norm"]
    whole = torch.stack([each.grad.norm() for each in agent.policy.parameters()]).norm()
    torch.testing.assert_close(whole, norm)


def test_rmsprop_is_tensorflows_formula() -> None:
    torch.manual_seed(0)
    weights = [torch.randn(3, 4, requires_grad=True), torch.randn(5, requires_grad=True)]
    unused = torch.ones(2, requires_grad=True)
    optimizer = RMSprop([*weights, unused], learning_rate=0.1, decay=0.9, epsilon=0.01)
    expected = [each.detach().clone() for each in weights]
    squares = [torch.ones_like(each) for each in weights]
    for _ in range(4):
        for index, weight in enumerate(weights):
            weight.grad = torch.randn_like(weight)
            squares[index] = 0.9 * squares[index] + 0.1 * weight.grad**2
            expected[index] -= 0.1 * weight.grad / (squares[index] + 0.01).sqrt()
        optimizer.step()
    for weight, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.detach(), other)
    assert torch.equal(unused.detach(), torch.ones(2))


@pytest.mark.parametrize(
    ("rewards", "expected"), [("sign", [-1, 0, 1, 1]), ("clip", [-1, 0, 0.5, 1]), ("raw", None)]
)
def test_rewards_are_clipped_as_configured(rewards: str, expected: Any) -> None:
    reward = np.array([-7.0, 0.0, 0.5, 3.0])
    values = on_policy._clipped(reward, rewards)
    np.testing.assert_array_equal(values, reward if expected is None else expected)


@pytest.mark.parametrize("ends", [False, True])
def test_a_lost_life_ends_an_episode_if_configured(
    ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.envs.make", partial(fakes.make_chain, slip=0.0))
    policy = fakes.policy(replace(SMALL, num_envs=1, life_loss_ends=ends), agent="impala")
    environment = on_policy.make_environment(policy)
    environment.reset()
    terminated = [bool(environment.step(np.array([1]))[2][0]) for _ in range(8)]
    assert terminated == [False] * 3 + [ends] + [False] * 3 + [True]
