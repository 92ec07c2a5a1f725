"""Evaluation: whole episodes, one an environment, each reproducible alone, and one recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from datasets.errors import UnstableError
from rl import play
from rl.agents import ppo
from rl.policy import Policy
from tests.rl import fakes


@pytest.fixture(autouse=True)
def _chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.envs.single", fakes.single_chain)


def evaluate_random(episodes: int) -> play.Scores:
    return play.evaluate_random("fake/Chain", episodes=episodes, seed=5, progress=fakes.ignore)


def test_evaluation_plays_one_whole_episode_in_each_environment() -> None:
    counts: list[int] = []
    scores = play.evaluate_random("fake/Chain", episodes=8, seed=5, progress=counts.append)
    assert counts == [1] * 8
    assert set(scores["returns"]) <= {0.0, 3.0, 6.0}
    alone = play.evaluate_random("fake/Chain", episodes=3, seed=5, progress=fakes.ignore)
    assert scores["returns"][:3] == alone["returns"]  # a game depends on its own seeds alone
    assert scores["lengths"][:3] == alone["lengths"]
    assert len(set(scores["lengths"])) > 1


def test_finished_episodes_are_no_longer_played(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0
    real = fakes.Chain.step

    def step(self: fakes.Chain, action: np.int64) -> Any:
        nonlocal steps
        steps += 1
        return real(self, action)

    monkeypatch.setattr(fakes.Chain, "step", step)
    scores = play.evaluate_random("fake/Chain", episodes=8, seed=5, progress=fakes.ignore)
    assert steps == sum(scores["lengths"])


def test_an_episode_ends_where_its_simulation_becomes_unstable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would become unstable at every attempt; the other episodes, and the video, go on without
    it.
    """
    whole = play.evaluate_random("fake/Chain", episodes=8, seed=5, progress=fakes.ignore)
    assert "unstable" not in whole and whole["lengths"][0] > 2
    first = fakes.single_chain("fake/Chain", seed=5, index=0).random.bit_generator.state
    make_chain, real = fakes.single_chain, fakes.Chain.step
    broken: list[fakes.Chain] = []

    def single(word: str, *, seed: int, index: int, images: bool = True) -> fakes.Chain:
        chain = make_chain(word, seed=seed, index=index, images=images)
        if chain.random.bit_generator.state == first:
            broken.append(chain)
        return chain

    def step(self: fakes.Chain, action: np.int64) -> Any:
        if self in broken and self.length == 2:
            raise UnstableError("unstable", {"game_return": 1.5, "game_length": 3})
        return real(self, action)

    monkeypatch.setattr("datasets.envs.single", single)
    monkeypatch.setattr(fakes.Chain, "step", step)
    counts: list[int] = []
    results = play.evaluate_random("fake/Chain", episodes=8, seed=5, progress=counts.append)
    assert results["unstable"] == 1 and sum(counts) == 8
    assert (results["returns"][0], results["lengths"][0]) == (1.5, 3)
    assert results["returns"][1:] == whole["returns"][1:]
    assert len(play.record(fakes.policy(), seed=5, epsilon=1.0)) == 3


def test_a_vector_environment_gives_the_same_episodes() -> None:
    """Against gymnasium's, which continues after an episode's end."""
    episodes, seed = 5, 3
    environment = fakes.make_chain("fake/Chain", num_envs=episodes, seed=seed)
    environment.reset()
    random = [np.random.default_rng([seed, game, 1]) for game in range(episodes)]
    first: dict[int, tuple[float, int]] = {}
    while len(first) < episodes:
        for generator in random:
            generator.random()  # whether the action is random: always
        actions = np.array([generator.integers(3) for generator in random])
        _, _, terminated, truncated, infos = environment.step(actions)
        for game in np.flatnonzero(terminated | truncated).tolist():
            info = infos["final_info"]
            first.setdefault(game, (info["game_return"][game], info["game_length"][game]))
    scores = play.evaluate_random("fake/Chain", episodes=episodes, seed=seed, progress=fakes.ignore)
    assert list(zip(scores["returns"], scores["lengths"], strict=True)) == [
        first[game] for game in range(episodes)
    ]


def test_random_actions_are_independent_of_the_environments_generator() -> None:
    for index in range(3):
        player = play.Player("fake/Chain", 7, index, images=False)
        assert player.random.random() != np.random.default_rng((7, index)).random()


@pytest.mark.parametrize("pool", [1, 3])
def test_a_pool_of_environments_plays_the_same_episodes(
    pool: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a bounded number of open environments."""
    policy = fakes.policy()
    settings: Any = dict(episodes=7, seed=5, epsilon=0.3, progress=fakes.ignore)
    whole, random = play.evaluate(policy, **settings), evaluate_random(episodes=7)
    make_chain, closed = fakes.single_chain, fakes.Chain.close
    opened: list[int] = [0]

    def single(word: str, **keys: Any) -> fakes.Chain:
        opened.append(opened[-1] + 1)
        return make_chain(word, **keys)

    def close(self: fakes.Chain) -> None:
        opened.append(opened[-1] - 1)
        closed(self)

    monkeypatch.setattr("datasets.envs.single", single)
    monkeypatch.setattr(fakes.Chain, "close", close)
    monkeypatch.setattr(play, "POOL", pool)
    assert play.evaluate(policy, **settings) == whole
    assert evaluate_random(episodes=7) == random
    assert max(opened) == pool and opened[-1] == 0


def sampled(monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> Policy:
    """A policy that prefers the action that the chain rewards, 1, by a little."""
    monkeypatch.setattr(fakes.Chain, "size", fakes.LARGE)
    policy = fakes.policy(ppo.Config(steps=1024), fakes.LargePixels(), seed, agent="ppo")
    actor: Any = policy.agent.policy.get_submodule("actor")
    with torch.no_grad():
        actor.weight.zero_(), actor.bias.copy_(torch.tensor([0.5, 0.3, 0.2]).log())
    return policy


def test_sampled_actions_have_the_policys_probabilities() -> None:
    player, log_policy = play.Player("fake/Chain", 3, 0, images=True), np.log([0.5, 0.3, 0.2])
    chosen = [int(player.choose(np.array(2), 0.0, log_policy)) for _ in range(5_000)]
    np.testing.assert_allclose(np.bincount(chosen) / 5_000, [0.5, 0.3, 0.2], atol=0.02)
    assert {int(player.choose(np.array(2), 0.0)) for _ in range(20)} == {2}
    mixed = [int(player.choose(np.array(2), 0.5, log_policy)) for _ in range(5_000)]
    np.testing.assert_allclose(np.bincount(mixed) / 5_000, [0.417, 0.317, 0.267], atol=0.02)


def test_a_sampled_episode_depends_on_its_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on those beside it, nor on earlier evaluations; the first is the recorded one."""
    settings: Any = dict(seed=5, epsilon=0.0, progress=fakes.ignore)
    policy = sampled(monkeypatch)
    whole = play.evaluate(policy, episodes=7, sample=True, **settings)
    for pool in (1, 3):
        monkeypatch.setattr(play, "POOL", pool)
        assert play.evaluate(policy, episodes=7, sample=True, **settings) == whole
    frames = play.record(policy, seed=5, epsilon=0.0, sample=True)
    assert len(frames) == whole["lengths"][0]
    assert sum(whole["returns"]) > 0  # the most probable action, 0, has no reward
    assert sum(play.evaluate(policy, episodes=7, **settings)["returns"]) < sum(whole["returns"])


def test_finished_episodes_are_no_longer_encoded() -> None:
    encoder = fakes.Tokens()
    policy = fakes.policy(encoder=encoder)
    encoder.frames = 0
    scores = play.evaluate(policy, episodes=6, seed=5, epsilon=1.0, progress=fakes.ignore)
    assert encoder.frames == sum(scores["lengths"])
    uniform = play.evaluate_random("fake/Chain", episodes=6, seed=5, progress=fakes.ignore)
    assert scores == uniform  # ε = 1 is the random policy


def test_the_recorded_episode_is_the_first_one_evaluated() -> None:
    policy = fakes.policy()
    scores = play.evaluate(policy, episodes=4, seed=2, epsilon=0.5, progress=fakes.ignore)
    frames = play.record(policy, seed=2, epsilon=0.5)
    assert len(frames) == scores["lengths"][0]
    assert [frame.step for frame in frames] == list(range(len(frames)))
    assert frames[0].score == 0
    last = frames[-1]
    assert last.selected is not None
    assert last.attention is not None
    assert last.selected.tolist() == [7, 3]  # without padding
    assert last.attention.shape == (2,)
    assert 0 < last.attention.sum() < 1
    assert len(play.record(policy, seed=2, epsilon=0.5, limit=3)) == 3
    without = play.record(fakes.policy(encoder=fakes.Pixels()), seed=2, epsilon=0.5, limit=1)
    assert without[0].selected is None


@pytest.mark.parametrize("uses", [True, False])
def test_a_frame_has_the_saliency_map_that_the_features_depend_on(
    uses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None if the encoder has a source that its features leave out."""
    encoder = fakes.Pixels()
    monkeypatch.setattr(encoder, "saliency_map", lambda image: image[:, :1] / 255)
    monkeypatch.setattr(encoder, "uses_saliency", uses)
    frame = play.record(fakes.policy(encoder=encoder), seed=2, epsilon=0.5, limit=1)[0]
    if uses:
        assert frame.saliency is not None
        np.testing.assert_allclose(frame.saliency, frame.image[..., 0] / 255, rtol=1e-6)
    else:
        assert frame.saliency is None
