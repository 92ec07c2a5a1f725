"""The actor: encoding, recurrent state and resets, for several environments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pretrain.encoder import Obs
from rl.actor import Actor
from rl.agent import Agent
from rl.net import Core, Extras, State
from rl.nets import deep_cnn
from tests.rl import fakes, point

SHAPE = (fakes.SIZE, fakes.SIZE, 3)


def images(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE)).astype(np.uint8)


def nothing(count: int, *first: int) -> dict[str, Any]:
    """Action 0 and reward 0; rows `first` begin an episode."""
    flags = np.isin(np.arange(count), first)
    return {"action": np.zeros(count, np.int64), "reward": np.zeros(count), "first": flags}


def test_environments_in_parallel_are_as_alone() -> None:
    """One of them begins a new episode in between."""
    policy, sequences = fakes.policy(), [images(3, seed) for seed in range(4)]
    together, alone = Actor(policy, 3), [Actor(policy) for _ in range(3)]
    for number, frame in enumerate(sequences):
        first = [1] if number == 2 else []
        everyone = [slice(0, 3), *(slice(row, row + 1) for row in range(3))]
        for actor, rows in zip([together, *alone], everyone, strict=True):
            if number == 0:
                actor.begin(frame[rows], {})
            else:
                done = {key: value[rows] for key, value in nothing(3, *first).items()}
                actor.observe(frame[rows], {}, **done)
        action, extras = together.act(explore=False)
        for row, actor in enumerate(alone):
            own, theirs = actor.act(explore=False)
            assert own == action[row]
            torch.testing.assert_close(theirs["attention"][0], extras["attention"][row])
            assert torch.equal(actor.state["x"][0], together.state["x"][row])
    assert not together.state["x"][1, 0].any() and together.state["x"][0, 0].any()


def test_the_state_of_removed_environments_is_dropped() -> None:
    actor, frame = Actor(fakes.policy(), 3), images(3, 0)
    actor.begin(frame, {})
    actor.act(explore=False)
    before = actor.state["x"].clone()
    actor.keep(np.array([True, False, True]))
    assert torch.equal(actor.state["x"], before[[0, 2]])
    actor.observe(frame[[0, 2]], {}, **nothing(2))
    assert actor.act(explore=False)[0].shape == (2,)


def test_a_restored_actor_continues_bit_for_bit() -> None:
    policy = fakes.policy()
    actor, other = Actor(policy), Actor(policy)
    actor.begin(images(1, 0), {})
    actor.act(explore=False)
    actor.observe(images(1, 1), {}, **nothing(1))
    other.load_state_dict(actor.state_dict())
    for each in (actor, other):
        each.act(explore=False)
    assert torch.equal(actor.state["x"], other.state["x"])


class Accumulator(Core):
    """Sums up the last actions and rewards in its input."""

    width, reads = 1, ("action", "reward")

    def initial(self, batch: int) -> State:
        return {"sum": torch.zeros(batch)}

    def forward(self, obs: Obs, state: State, first: Tensor) -> tuple[Tensor, State, Extras]:
        sums = []
        for step, begins in enumerate(first):
            inputs = obs["action"][step].float().view(len(begins), -1).sum(1) + obs["reward"][step]
            state = {"sum": state["sum"] * ~begins + inputs}
            sums.append(state["sum"][:, None])
        return torch.stack(sums), state, {}


@pytest.mark.parametrize("continuous", [False, True])
def test_a_core_reads_the_action_and_reward_before_the_frame(continuous: bool) -> None:
    """Zero at the start of an episode."""
    net = deep_cnn.Config(layers=3, filters=4, width=8)
    policy = point.policy(encoder=fakes.Pixels(), net=net) if continuous else fakes.policy()

    class Reader:
        device, core = torch.device("cpu"), Accumulator()

        def act(self, obs: Obs, state: State, first: Tensor, **_: bool) -> Any:
            features, state, extras = self.core.step(obs, state, first)
            return features[:, 0], state, extras

    agent: Agent[Any] = Reader()  # type: ignore[assignment]
    actor = Actor(replace(policy, agent=agent), 2)
    actor.begin(images(2, 0), {})
    assert actor.act(explore=False)[0].tolist() == [0, 0]
    action: Any = np.array([[1, 1], [2, 0]], np.float32) if continuous else np.array([2, 2])
    reward = np.array([0.5, 1.0])
    actor.observe(images(2, 1), {}, action=action, reward=reward, first=np.array([False, True]))
    assert actor.act(explore=False)[0].tolist() == [2.5, 0]
    actor.observe(images(2, 2), {}, action=action, reward=reward, first=np.array([False, False]))
    assert actor.act(explore=False)[0].tolist() == [5.0, 3.0]
