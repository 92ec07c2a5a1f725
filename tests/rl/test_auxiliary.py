"""Attention learned online: which pairs, which steps, whose gradients; against loops."""

from __future__ import annotations

from collections import Counter, deque
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pretrain.encoder import Obs
from pretrain.encoders import attention
from pretrain.modules.linear import has_bfloat16
from rl import auxiliary
from rl.auxiliary import PairLoss, partners, sample
from rl.net import Auxiliary
from rl.nets.masked_cnn import Config, Net
from rl.stack import FrameStack

SIZE, ENVS = 36, 3


def frames(steps: int, seed: int = 0) -> Tensor:
    """(T, N, 1, H, W): a bright square that moves over noise that stays."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 60, (1, 1, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    image = noise.repeat(steps, ENVS, 1, 1, 1)
    places = torch.randint(0, SIZE - 8, (steps, ENVS, 2), generator=generator).tolist()
    for step, row in enumerate(places):
        for env, (y, x) in enumerate(row):
            image[step, env, 0, y : y + 8, x : x + 8] = 250
    return image


def firsts(steps: int, every: int = 7) -> Tensor:
    """Episodes of a length of their own in each environment."""
    step = torch.arange(steps)
    return torch.stack([step % (every + env) == 0 for env in range(ENVS)], dim=1)


def net(**settings: Any) -> Net:
    torch.manual_seed(0)
    return Net(Config(mask="joint", width=16, **settings), {"image": frames(1)[0]}, 2)


def pair_loss(network: Net | None = None, precision: Any = "float32") -> PairLoss:
    loss = (network or net()).auxiliary(precision, seed=0)
    assert isinstance(loss, PairLoss)
    return loss


def learn(loss: PairLoss, updates: int, steps: int = 10) -> list[dict[str, Tensor]]:
    """What each update says."""
    return [
        loss.update({"image": frames(steps, seed)}, firsts(steps) if seed == 0 else NEVER[:steps])
        for seed in range(updates)
    ]


NEVER = torch.zeros(200, ENVS, dtype=torch.bool)


def test_pairs_are_of_two_steps_of_one_episode() -> None:
    episode = firsts(20).cumsum(0)
    pairs = partners(episode)
    for one in range(20):
        for other in range(20):
            for env in range(ENVS):
                expected = one != other and episode[one, env] == episode[other, env]
                assert pairs[one, other, env] == expected


def test_targets_and_their_sources_are_sampled_uniformly() -> None:
    """There is none of an episode of one step, nor of an environment that has no other."""
    episode = torch.tensor([[0, 0, 0], [0, 1, 1], [0, 1, 2], [1, 1, 3]])
    generator, counts = torch.Generator().manual_seed(0), Counter[tuple[int, int, int]]()
    for _ in range(3_000):
        row, target, source = sample(partners(episode), generator)
        assert row.tolist() == [0, 1]
        counts.update(zip(row.tolist(), target.tolist(), source.tolist(), strict=True))
    three = {0: (0, 1, 2), 1: (1, 2, 3)}
    every = {(n, t, s) for n, steps in three.items() for t in steps for s in steps if s != t}
    assert set(counts) == every
    assert all(abs(count / 3_000 - 1 / 6) < 0.03 for count in counts.values())


@pytest.mark.parametrize("unroll", [4, 7, 25, 130])
def test_the_last_60_steps_are_kept(unroll: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auxiliary, "WARM_UP", 1_000)
    loss, last = pair_loss(), deque[tuple[Tensor, Tensor]](maxlen=auxiliary.STEPS)
    numbers = torch.zeros(ENVS, dtype=torch.int64)
    for seed in range(400 // unroll):
        image = torch.randint(0, 256, (unroll, ENVS, 1, SIZE, SIZE), dtype=torch.uint8)
        first = torch.rand(unroll, ENVS) < 0.2
        loss.update({"image": image}, first)
        for frame, begins in zip(image, first, strict=True):
            numbers = numbers + begins
            last.append((frame, numbers))
        count = min(loss.total, auxiliary.STEPS)
        assert count == len(last) == min((seed + 1) * unroll, auxiliary.STEPS)
        order = (torch.arange(count) + loss.total - count) % auxiliary.STEPS
        assert torch.equal(loss.frames[order], torch.stack([frame for frame, _ in last]))
        assert torch.equal(loss.episode[order], torch.stack([number for _, number in last]))


@pytest.mark.parametrize(("unroll", "steps"), [(3, 1), (5, 1), (12, 2), (20, 4)])
def test_there_is_a_step_for_every_five_of_a_rollout_from_the_17th_update_on(
    unroll: int, steps: int
) -> None:
    loss = pair_loss()
    logs = learn(loss, 18, unroll)
    assert not any(logs[:16]) and all(set(log) == {"attention_loss", "mask"} for log in logs[16:])
    adam = loss.optimizer.state_dict()["state"][0]["step"]
    assert int(adam) == 2 * steps


def test_where_no_pair_is_kept_nothing_is_learned() -> None:
    loss = pair_loss()
    before = deepcopy(loss.model.state_dict())
    for _ in range(20):
        assert loss.update({"image": frames(5)}, ~NEVER[:5]) == {}
    assert all(torch.equal(value, before[key]) for key, value in loss.model.state_dict().items())


def test_a_step_is_adams_of_the_clipped_gradient_of_eq_2() -> None:
    loss = pair_loss()
    learn(loss, 16, 5)
    loss.update({"image": frames(5, 30)}, NEVER[:5])
    plain, generator = deepcopy(loss.model), torch.Generator()
    generator.set_state(loss.generator.get_state())
    adam = torch.optim.Adam(plain.parameters(), 1e-3)
    adam.load_state_dict(deepcopy(loss.optimizer.state_dict()))
    scalars = loss.update({"image": frames(5, 31)}, NEVER[:5])
    row, target, source = sample(partners(loss.episode), generator)
    after, before = (loss.frames[index, row].float() / 255 for index in (target, source))
    output = plain(before, after)
    error = (output.target - after).square()
    expected = (error * (error >= 0.01)).mean() + (output.auto - after).square().mean()
    expected = expected + 1e-3 * output.mask.mean()
    adam.zero_grad()
    torch.autograd.backward(expected)
    nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
    torch.testing.assert_close(scalars["attention_loss"], expected.detach())
    torch.testing.assert_close(scalars["mask"], output.mask.detach().mean())
    for ours, theirs in zip(loss.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-3)
        theirs.grad = ours.grad  # Adam makes rounding as large as what is rounded
    adam.step()
    for ours, theirs in zip(loss.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_loss_goes_down_and_the_mask_is_the_networks() -> None:
    network = net()
    assert network.mask is not None
    loss, before = pair_loss(network), deepcopy(network.mask.state_dict())
    logs = [log["attention_loss"].item() for log in learn(loss, 60, 20)[16:]]
    assert sum(logs[-10:]) < 0.7 * sum(logs[:10])
    after = network.mask.state_dict()
    assert all(not torch.equal(value, before[key]) for key, value in after.items())


def test_bfloat16_has_the_gradient_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every weight, though the source's side runs without gradients in the same autocast."""
    gradients = {}
    for precision in ("float32", "auto"):
        loss = pair_loss(precision=precision)
        learn(loss, 16, 20)
        monkeypatch.setattr(loss.optimizer, "step", lambda: None)
        learn(loss, 1, 5)
        slopes = [part.grad for part in loss.trained_parameters]
        assert None not in slopes
        gradients[precision] = torch.cat([slope.flatten() for slope in slopes if slope is not None])
    similarity = torch.cosine_similarity(gradients["float32"], gradients["auto"], dim=0)
    assert similarity > 0.98
    assert torch.equal(gradients["float32"], gradients["auto"]) != has_bfloat16()


def test_it_goes_on_bit_for_bit(tmp_path: Any) -> None:
    first, second = net(), net()
    ours, theirs = pair_loss(first), pair_loss(second)
    learn(ours, 20, 5)
    torch.save(ours.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(first.state_dict())
    theirs.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for seed in (50, 51):
        rollout = {"image": frames(5, seed)}, firsts(5)
        assert ours.update(*rollout) == theirs.update(*rollout)
    for one, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("rl_gradient", [True, False])
def test_the_agents_gradient_reaches_the_mask_where_it_is_to(rl_gradient: bool) -> None:
    network = net(rl_gradient=rl_gradient)
    features, extras = network({"image": frames(2).transpose(0, 1)})
    torch.autograd.backward(features.sum())
    assert network.mask is not None
    assert [p.grad is not None for p in network.mask.parameters()] == [rl_gradient] * 14
    assert all(p.grad is not None for p in network.convolutions.parameters())
    assert extras["attention"].requires_grad is rl_gradient


def test_the_network_holds_what_acting_needs() -> None:
    network, example = net(), {"image": frames(1)[0]}
    assert {name.partition(".")[0] for name in network.state_dict()} == {
        "convolutions", "mask", "project",
    }  # fmt: skip
    core = FrameStack(network, 2, example)
    assert isinstance(core.auxiliary("float32", 0), PairLoss) and core.has_auxiliary
    other = Net(Config(mask="top_down", width=16), example, 2)
    nothing = FrameStack(other, 2, example).auxiliary("float32", 0)
    assert type(nothing) is Auxiliary and not other.has_auxiliary
    obs: Obs = {"image": frames(2)}
    assert nothing.update(obs, firsts(2)) == nothing.state_dict() == {}


def test_the_loss_is_the_pretrainings() -> None:
    """δ and λ here are the defaults there."""
    config = attention.Config()
    assert (config.delta, config.sparsity) == (auxiliary.DELTA, auxiliary.SPARSITY)
    assert (config.learning_rate, config.clip_norm) == (
        auxiliary.LEARNING_RATE,
        auxiliary.GRADIENT_NORM,
    )
    assert config.max_gap == auxiliary.STEPS
