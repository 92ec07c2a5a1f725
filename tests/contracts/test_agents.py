"""The contract of every agent, on the features of every encoder that it has a net for."""

from __future__ import annotations

import importlib
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pretrain.encoder import Obs
from rl import nets
from rl.agent import Agent, Batch, OffPolicyConfig, Rollout
from rl.net import Core, Net
from rl.stack import FrameStack
from tests.contracts.components import (
    ACTIONS,
    LEARNED,
    components,
    equal,
    inputs_for,
    kind,
    make_agent,
    make_encoder,
    net_choice,
)

ENCODERS = [*components("pretrain.encoders"), "pretrain.encoders.multimae:none"]

# Every agent with every encoder that it has a net for, and with the attention that is learned.
MATRIX = pytest.mark.parametrize(
    ("component", "encoder_name"),
    [
        (agent, encoder_name)
        for agent, encoder_name in itertools.product(components("rl.agents"), ENCODERS)
        if kind(encoder_name) in importlib.import_module(agent).NETS
    ]
    + [
        (f"rl.agents.{agent}:{word}", "pretrain.encoders.pixels")
        for agent in ("a2c", "acktr", "ppo")
        for word in (LEARNED if agent == "ppo" else ("joint", "top_down", "fls"))
    ]
    + [("rl.agents.rainbow:fls", "pretrain.encoders.pixels")],
)


def stacked(pool: Obs, count: int, depth: int, seed: int = 0) -> Obs:
    """`count` states of `depth` frames, sampled from encoded ones."""
    size, generator = len(next(iter(pool.values()))), torch.Generator().manual_seed(seed)
    rows = torch.randint(size, (count, depth), generator=generator)
    return {key: value[rows] for key, value in pool.items()}


def net_of(core: Core) -> Net:
    """The net below the frame stack."""
    assert isinstance(core, FrameStack)
    return core.net


def test_every_net_is_of_some_agent() -> None:
    kinds = {kind(component) for component in ENCODERS}
    taken = [importlib.import_module(component).NETS for component in components("rl.agents")]
    named = {f"rl.nets.{net}" for nets in taken for net in nets.values()}
    chosen = {f"rl.nets.{net}" for net, _ in LEARNED.values()}
    assert named | chosen == set(components("rl.nets"))
    assert {kind for nets in taken for kind in nets} == kinds


@MATRIX
def test_the_net_is_chosen_without_the_encoder(component: str, encoder_name: str) -> None:
    """The encoder's Features have a kind, for which the agent has a net."""
    features = make_encoder(encoder_name).features
    assert features.kind == kind(encoder_name)
    net, _ = net_choice(component, features.kind)
    assert features.kind in importlib.import_module(f"rl.nets.{net}").KINDS


@MATRIX
def test_the_net_of_an_agent_on_an_encoders_features(component: str, encoder_name: str) -> None:
    """One finite vector a state, independent of the other states; every parameter has a gradient;
    saved weights act the same.
    """
    encoder, depth = make_encoder(encoder_name), 2
    stack, example = (
        stacked(encoder(inputs_for(encoder, 6)), 3, depth),
        encoder(inputs_for(encoder, 1)),
    )
    net, config = net_choice(component, kind(encoder_name))
    torch.manual_seed(0)
    module, other = (net_of(nets.make(net, config, example, depth)) for _ in range(2))
    vectors, extras = module(stack)
    assert vectors.shape == (3, module.width) and vectors.dtype == torch.float32
    assert vectors.isfinite().all()
    alone, _ = module({key: value[1:2] for key, value in stack.items()})
    torch.testing.assert_close(alone, vectors[1:2])
    if "attention" in extras:
        attention = extras["attention"]
        assert attention.min() >= 0 and len(attention) == 3
        if encoder.max_tokens:
            assert attention.ndim == 3 and attention.shape[2] == encoder.max_tokens
            assert attention.sum(-1).max() <= 1 + 1e-5
        else:
            assert attention.ndim == 4 and attention.max() <= 1
    if list(module.parameters()):
        vectors.square().sum().backward()
        assert not torch.equal(other(stack)[0], vectors)
    for name, parameter in module.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, f"{name} never learns"
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(stack)[0], vectors)


def continuous(agent: Agent[Any]) -> bool:
    space: str = importlib.import_module(type(agent).__module__).ACTIONS
    assert space in ("discrete", "continuous")
    return space == "continuous"


def make_batch(agent: Agent[Any], pool: Obs, seed: int) -> Batch | Rollout:
    """A batch for the agent's update."""
    generator = torch.Generator().manual_seed(seed)
    if not isinstance(agent.config, OffPolicyConfig):
        return make_rollout(agent, pool, generator)
    size = agent.config.batch_size
    chosen = torch.randint(ACTIONS, (size,), generator=generator)
    if continuous(agent):
        chosen = torch.rand(size, ACTIONS, generator=generator) * 2 - 1
    return Batch(
        obs=stacked(pool, size, agent.config.stack, seed),
        action=chosen,
        reward=torch.randn(size, generator=generator),
        discount=torch.tensor([0.9, 0.0] * size)[:size],
        next_obs=stacked(pool, size, agent.config.stack, seed + 100),
        weight=torch.rand(size, generator=generator),
        index=torch.arange(size),
    )


def make_rollout(agent: Agent[Any], pool: Obs, generator: torch.Generator) -> Rollout:
    shape = agent.config.unroll, agent.config.num_envs
    rows = torch.randint(len(next(iter(pool.values()))), shape, generator=generator)
    return Rollout(
        obs={key: value[rows] for key, value in pool.items()},
        first=torch.rand(shape, generator=generator) < 0.3,
        state=agent.core.initial(shape[1]),
        action=torch.randint(ACTIONS, shape, generator=generator),
        reward=torch.randn(shape, generator=generator),
        discount=0.9 * (torch.rand(shape, generator=generator) > 0.3),
        log_prob=torch.full(shape, 1 / ACTIONS).log(),
        value=torch.randn(shape, generator=generator),
        last_value=torch.randn(shape[1], generator=generator),
    )


@MATRIX
def test_a_core_gives_the_same_for_a_sequence_as_step_by_step(
    component: str, encoder_name: str
) -> None:
    """At the start of an episode, its output is that for the very first frame."""
    encoder, steps, batch = make_encoder(encoder_name), 5, 3
    core = make_agent(component, encoder).core
    frames = [encoder(inputs_for(encoder, batch, seed=n)) for n in range(steps)]
    obs = {key: torch.stack([frame[key] for frame in frames]) for key in frames[0]}
    first = torch.zeros(steps, batch, dtype=torch.bool)
    first[0] = first[2, 1] = first[4, 2] = True
    with torch.no_grad():
        together, last, extras = core(obs, core.initial(batch), first)
        assert together.shape == (steps, batch, core.width)
        state = core.initial(batch)
        for number, frame in enumerate(frames):
            before = {key: value.clone() for key, value in state.items()}
            given_state, (alone, state, alone_extras) = (
                state,
                core.step(frame, state, first[number]),
            )
            assert equal(given_state, before), "the caller's state was written to"
            torch.testing.assert_close(alone, together[number])
            assert alone_extras.keys() == extras.keys()
            for key, value in alone_extras.items():
                torch.testing.assert_close(value, extras[key][number])
        assert equal(state, last)
        fresh, _, _ = core(
            {key: value[2:4, 1:2] for key, value in obs.items()}, core.initial(1), first[2:4, 1:2]
        )
    torch.testing.assert_close(fresh[:, 0], together[2:4, 1])


@MATRIX
def test_an_agent_acts(component: str, encoder_name: str) -> None:
    """Valid actions, the same for the same frames without exploration."""
    encoder = make_encoder(encoder_name)
    agent = make_agent(component, encoder)
    state, first = agent.core.initial(4), torch.tensor([True] * 4)
    for number in range(3):
        obs = encoder(inputs_for(encoder, 4, seed=number))
        action, state, extras = agent.act(obs, state, first, explore=number % 2 == 0)
        if continuous(agent):
            assert action.shape == (4, ACTIONS) and action.dtype == torch.float32
            assert action.abs().max() <= 1
        else:
            assert action.shape == (4,) and action.dtype == torch.int64
            assert action.min() >= 0 and action.max() < ACTIONS
        assert not any(value.requires_grad for value in extras.values())
        first = torch.tensor([False, False, True, False])
    again = [agent.act(obs, agent.core.initial(4), first, explore=False)[0] for _ in range(2)]
    assert torch.equal(*again)


@MATRIX
def test_an_agent_learns_and_resumes_bit_for_bit(
    component: str, encoder_name: str, tmp_path: Path
) -> None:
    """The next updates depend on its state dict alone, written and read without pickle."""
    encoder = make_encoder(encoder_name)
    agent, other = make_agent(component, encoder), make_agent(component, encoder, seed=1)
    pool = encoder(inputs_for(encoder, 8))
    start = {key: value.clone() for key, value in agent.policy.state_dict().items()}
    assert equal(make_agent(component, encoder).policy.state_dict(), start), (
        "made twice is not the same"
    )
    for number in range(3):
        scalars = agent.update(make_batch(agent, pool, number))
        assert not any(value.requires_grad for value in scalars.values())
        if isinstance(agent.config, OffPolicyConfig) and agent.config.priority_exponent:
            priority = scalars.pop("priority")
            assert priority.shape == (agent.config.batch_size,) and (priority >= 0).all()
        assert "loss" in scalars
        assert all(value.shape == () and value.isfinite() for value in scalars.values())
    for name, parameter in agent.policy.named_parameters():
        changed = not torch.equal(parameter, start[name])
        assert changed == parameter.requires_grad, f"{name}: changed {changed}"
    torch.save(agent.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for number in range(3, 6):
        batch = make_batch(agent, pool, number)
        assert equal(agent.update(batch), other.update(batch))
    assert flat(agent.state_dict()) == flat(other.state_dict())
    obs, first = encoder(inputs_for(encoder)), torch.ones(4).bool()
    actions = [a.act(obs, a.core.initial(4), first, explore=True)[0] for a in (agent, other)]
    assert torch.equal(*actions)


@MATRIX
def test_an_agent_learns_as_with_adam_weight_by_weight(
    component: str, encoder_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adam's fused form applies a gradient to the wrong weights where strides differ."""
    encoder = make_encoder(encoder_name)
    pool, fused = encoder(inputs_for(encoder, 8)), make_agent(component, encoder)
    for name, faster in {"Adam": ("fused", "foreach"), "RMSprop": ("foreach",)}.items():
        plain = partial(without, getattr(torch.optim, name), faster)
        monkeypatch.setattr(torch.optim, name, plain)
    slow = make_agent(component, encoder)
    for number in range(3):
        batch = make_batch(fused, pool, number)
        fused.update(batch), slow.update(batch)
    for (name, ours), theirs in zip(
        fused.policy.named_parameters(), slow.policy.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4, msg=name)


def without(optimizer: Any, forms: tuple[str, ...], parameters: Any, **keys: Any) -> Any:
    """The optimizer without its faster forms."""
    return optimizer(parameters, **keys | dict.fromkeys(forms, False))


def flat(state: Any) -> bytes:
    """The state's bytes, equal for equal states of any content."""
    if isinstance(state, Tensor):
        return repr((state.dtype, state.shape)).encode() + state.numpy().tobytes()
    if isinstance(state, dict):
        return b"".join(repr(key).encode() + flat(value) for key, value in state.items())
    if isinstance(state, list | tuple):
        return b"".join(map(flat, state))
    return repr(state).encode()
