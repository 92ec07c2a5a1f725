"""Rainbow: sizes, the update against its formulas, exact state, no reads from the device."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pretrain.encoder import Obs
from rl.agent import Batch
from rl.agents.rainbow import Agent, Config
from rl.layers import resample_noise
from tests.rl.fakes import SMALL, Fake, Pixels, policy


class SalientPatches(Fake):
    """SPIRL's sizes: 50 tokens of 64 numbers from 96x96 frames."""

    image_shape = (3, 96, 96)
    max_tokens = 50
    dim = 64

    def forward(self, image: Tensor) -> Obs:
        shape = (len(image), 50)
        return {
            "x": torch.zeros(*shape, 64),
            "mask": torch.ones(shape, dtype=torch.bool),
            "pos": torch.zeros(shape, dtype=torch.int64),
        }


class Frames(Pixels):
    image_shape = (3, 96, 96)


def small(**settings: Any) -> Agent:
    agent = policy(replace(SMALL, **settings)).agent
    assert isinstance(agent, Agent)
    return agent


def random_batch(agent: Agent, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    size, stack = agent.config.batch_size, agent.config.stack

    def obs() -> Obs:
        x = torch.randn(size, stack, 4, 8, generator=generator)
        return {
            "x": x,
            "mask": torch.ones(size, stack, 4, dtype=torch.bool),
            "pos": torch.zeros(size, stack, 4, dtype=torch.int64),
        }

    return Batch(
        obs=obs(),
        action=torch.randint(3, (size,), generator=generator),
        reward=torch.randn(size, generator=generator),
        discount=0.9 * (torch.rand(size, generator=generator) < 0.8),
        next_obs=obs(),
        weight=torch.rand(size, generator=generator),
        index=torch.arange(size),
    )


@pytest.mark.parametrize(
    ("encoder", "actions", "count"),
    [(SalientPatches(), 18, 645_042), (SalientPatches(), 9, 409_116), (Frames(), 18, 1_149_810)],
)
def test_parameter_counts(encoder: Any, actions: int, count: int) -> None:
    agent = policy(Config(), encoder, actions=actions).agent
    assert sum(p.numel() for p in agent.policy.parameters()) == count


def test_double_q_takes_the_online_networks_action_at_the_target_networks_value() -> None:
    """The two networks disagree on which of the three actions is best."""
    agent = small(sigma=0.0)
    batch = replace(random_batch(agent), discount=torch.full((8,), 1.0), reward=torch.zeros(8))
    for network, best in ((agent.policy, 2), (agent.target, 0)):
        advantage = network.head.advantage
        with torch.no_grad():
            advantage.weight.zero_()
            bias = torch.zeros(3, SMALL.atoms)
            bias[best, -1] = 9.0  # the best action's mass lies on the highest atom
            bias[1 if best == 2 else 2, 0] = 9.0
            advantage.bias.copy_(bias.flatten())
            network.head.value.weight.zero_()
            network.head.value.bias.zero_()
    target_logits = agent.target(batch.next_obs)
    assert agent.policy.greedy(agent.policy(batch.next_obs)).tolist() == [2] * 8
    assert agent.target.greedy(target_logits).tolist() == [0] * 8
    want = target_logits[:, 2].softmax(-1)  # discount 1 and reward 0 move nothing
    torch.testing.assert_close(agent.targets(batch), want, atol=1e-5, rtol=0)


def test_the_update_descends_the_weighted_divergence() -> None:
    agent, twin = small(), small()
    batch = random_batch(agent)
    result = agent.update(batch)
    for network in (twin.policy, twin.target):  # the same draws as the update's
        network.train()
        resample_noise(network, twin.generator)
    target = twin.targets(batch)
    logits = twin.policy(batch.obs)
    predicted = logits[torch.arange(8), batch.action].log_softmax(-1)
    divergence = torch.nn.functional.kl_div(predicted, target, reduction="none").sum(-1)
    torch.testing.assert_close(result["priority"], divergence.detach())
    loss = (batch.weight * divergence).mean()
    torch.testing.assert_close(result["loss"], loss.detach())
    gradients = torch.autograd.grad(loss, [p for p in twin.policy.parameters() if p.requires_grad])
    norm = torch.stack([g.norm() for g in gradients]).norm()
    torch.testing.assert_close(result["gradient_norm"], norm)


def test_long_gradients_are_clipped() -> None:
    """Adam's first moment is a tenth of the first clipped gradient."""
    agent = small(gradient_norm=1e-3)
    agent.update(random_batch(agent))
    moments = [entry["exp_avg"] for entry in agent.optimizer.state.values()]
    norm = torch.stack([m.norm() for m in moments]).norm().item()
    assert norm == pytest.approx(1e-4, rel=1e-2)


def test_every_sigma_learns() -> None:
    agent = small()
    before = {k: v.clone() for k, v in agent.policy.named_parameters() if "sigma" in k}
    agent.update(random_batch(agent))
    after = dict(agent.policy.named_parameters())
    assert len(before) == 8
    assert all(not torch.equal(after[k], v) for k, v in before.items())


def test_the_target_network_is_copied_at_its_interval_only() -> None:
    agent = small(target_every=3)
    weight = agent.target.head.value.weight
    start = weight.clone()
    for update in range(1, 7):
        agent.update(random_batch(agent, update))
        online = agent.policy.head.value.weight
        assert torch.equal(weight, online) is (update % 3 == 0)
        assert torch.equal(weight, start) is (update < 3)
    assert not any(p.requires_grad for p in agent.target.parameters())


def test_the_atoms_are_constant() -> None:
    agent = small()
    for update in range(3):
        agent.update(random_batch(agent, update))
    assert torch.equal(agent.policy.support, torch.linspace(-2, 2, 11))


def test_an_update_reads_nothing_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = small()
    agent.update(random_batch(agent))  # Adam's first step sets itself up

    def read(*_: object) -> None:
        raise AssertionError("an update waits for the device")

    for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "nonzero"):
        monkeypatch.setattr(Tensor, name, read)
    result = agent.update(random_batch(agent))
    monkeypatch.undo()
    assert {v.shape for k, v in result.items() if k != "priority"} == {()}
    assert result["priority"].shape == (8,)


def test_noise_explores_and_is_off_otherwise() -> None:
    agent = small(sigma=20.0)
    obs = {k: v[:, 0] for k, v in random_batch(agent).obs.items()}
    first = torch.zeros(8, dtype=torch.bool)
    calm, noisy = set(), set()
    for seed in range(10):
        resample_noise(agent.policy, torch.Generator().manual_seed(seed))
        calm.add(tuple(agent.act(obs, agent.core.initial(8), first, explore=False)[0].tolist()))
        noisy.add(tuple(agent.act(obs, agent.core.initial(8), first, explore=True)[0].tolist()))
    assert len(calm) == 1
    assert len(noisy) > 1


def test_a_restored_agent_continues_bit_for_bit() -> None:
    agent = small()
    for update in range(5):
        agent.update(random_batch(agent, update))
    other = policy(seed=1).agent
    other.load_state_dict(deepcopy(agent.state_dict()))
    for update in range(5, 30):  # past a copy of the target network
        first, second = (a.update(random_batch(agent, update)) for a in (agent, other))
        assert all(torch.equal(first[key], second[key]) for key in first)
    pairs = zip(agent.policy.parameters(), other.policy.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    first = small().policy.state_dict()
    torch.manual_seed(6)
    again = small().policy.state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    other = policy(seed=1).agent.policy.state_dict()
    assert not torch.equal(first["net.cls"], other["net.cls"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("n_step", 0),
        ("gamma", 1.5),
        ("priority_exponent", -0.1),
        ("learning_rate", 0.0),
        ("atoms", 1),
        ("sigma", -1.0),
        ("value_min", 10.0),
        ("learn_start", 20),
        ("replay_capacity", 23),
    ],
)
def test_impossible_settings_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        replace(Config(), **{field: value})
