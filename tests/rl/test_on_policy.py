"""Training from rollouts: a chain is solved, rollouts contain the environments' steps, and a killed
run ends in the same bytes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from datasets.errors import FoveaError, UnstableError
from rl import on_policy, play, run
from rl.agent import OnPolicyAgent, OnPolicyConfig, Rollout
from rl.agents import a2c, acktr, impala, ppo
from rl.nets import impala_resnet, masked_cnn, top_down
from rl.policy import Policy
from rl.run import DivergedError
from rl.stack import push
from tests.rl import fakes

CONFIGS: dict[str, OnPolicyConfig] = {
    "a2c": a2c.Config(steps=320, num_envs=4, unroll=5, stack=2, gamma=0.9),
    "ppo": ppo.Config(steps=320, num_envs=4, unroll=16, stack=2, gamma=0.9, epochs=2),
    "acktr": acktr.Config(steps=320, num_envs=4, unroll=5, stack=2, gamma=0.9, invert_every=3),
    "impala": impala.Config(steps=320, num_envs=4, unroll=5, stack=2, gamma=0.9, group=3),
}
EVERY = pytest.mark.parametrize("name", sorted(CONFIGS))


@pytest.fixture(autouse=True)
def _chain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("datasets.envs.make", fakes.make_chain)
    monkeypatch.setattr("datasets.envs.single", fakes.single_chain)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order would be other bytes
    yield
    torch.set_num_threads(threads)


def policy(name: str, **changes: Any) -> Policy:
    return fakes.policy(replace(CONFIGS[name], **changes), agent=name)


def joint(name: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Policy:
    """A policy that trains its mask on its own frames, from the fourth update on."""
    monkeypatch.setattr(fakes.Chain, "size", fakes.LARGE)
    monkeypatch.setattr("rl.auxiliary.WARM_UP", 3)
    config, net = replace(CONFIGS[name], **changes), masked_cnn.Config(mask="joint", width=16)
    return fakes.policy(config, fakes.LargePixels(), agent=name, net=net)


def train(
    folder: Path, policy: Policy, progress: Callable[[int], None] = fakes.ignore, **every: int
) -> None:
    folder.mkdir(exist_ok=True)
    on_policy.train(
        policy,
        folder=folder,
        checkpoint_every=every.get("checkpoint_every", 100),
        resume_every=every.get("resume_every", 60),
        progress=progress,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a2c", {"steps": 4_000, "learning_rate": 0.01}),
        ("ppo", {"steps": 4_096, "learning_rate": 0.01, "clip": 0.2, "epochs": 4}),
        ("acktr", {"steps": 3_200, "unroll": 10, "kl_clip": 0.01}),
        ("impala", {"steps": 4_000, "learning_rate": 3e-3, "life_loss_ends": True}),
    ],
)
def test_a_chain_of_five_states_is_solved(
    name: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.envs.make", partial(fakes.make_chain, slip=0.0))
    monkeypatch.setattr("datasets.envs.single", partial(fakes.single_chain, slip=0.0))
    learner = policy(name, num_envs=8, stack=1, **settings)
    before = play.evaluate(learner, episodes=3, seed=9, epsilon=0.0, progress=fakes.ignore)
    train(tmp_path, learner, checkpoint_every=10_000, resume_every=10_000)
    after = play.evaluate(learner, episodes=3, seed=9, epsilon=0.0, progress=fakes.ignore)
    assert after == {"returns": [6.0] * 3, "lengths": [8] * 3}
    assert before != after


def favour_right(policy: Policy) -> Policy:
    """So that there are rewards."""
    with torch.no_grad():
        policy.agent.policy.get_parameter("actor.bias").copy_(torch.tensor([0.0, 1.0, 0.0]))
    return policy


class Recorder:
    """An agent that records its rollouts, and does not learn."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self.rollouts: list[Rollout] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.agent, name)

    def update(self, rollout: Rollout) -> dict[str, Tensor]:
        self.rollouts.append(rollout)
        return {"loss": torch.zeros(())}


def test_rollouts_contain_each_environment_s_steps(tmp_path: Path) -> None:
    """Each replayed alone with the actions taken: frames, ends, rewards, and V at truncations."""
    learner = favour_right(policy("a2c", steps=800, precision="float32"))
    agent = Recorder(learner.agent)
    train(tmp_path, replace(learner, agent=cast(Any, agent)))
    config, value = learner.agent.config, cast(OnPolicyAgent, learner.agent).value
    cuts, rewards = 0, 0.0
    for row in range(config.num_envs):
        game = fakes.Chain((0, row), 0.1, life_loss_ends=True)
        image, _ = game.reset()
        begins, state = True, learner.agent.core.initial(1)
        for rollout in agent.rollouts:
            before = {key: rollout.state[key][row : row + 1] for key in state}
            assert all(torch.equal(before[key], state[key]) for key in state)
            for t in range(config.unroll):
                obs = learner.encoder(torch.from_numpy(image).permute(2, 0, 1)[None])
                assert all(torch.equal(rollout.obs[key][t, row], obs[key][0]) for key in obs)
                first = torch.tensor([begins])
                assert bool(rollout.first[t, row]) is begins
                worth = value(obs, state, first)
                torch.testing.assert_close(rollout.value[t, row : row + 1], worth)
                state = push(obs, state, first)
                image, reward, over, cut, _ = game.step(np.int64(rollout.action[t, row].item()))
                target = torch.tensor([float(np.sign(reward))])
                rewards += reward
                if cut:
                    cuts += 1
                    final = learner.encoder(torch.from_numpy(image).permute(2, 0, 1)[None])
                    target += config.gamma * value(final, state, torch.tensor([False]))
                torch.testing.assert_close(rollout.reward[t, row : row + 1], target)
                begins = over or cut
                assert rollout.discount[t, row].item() == pytest.approx(0 if begins else 0.9)
                if begins:
                    image, _ = game.reset()
            obs = learner.encoder(torch.from_numpy(image).permute(2, 0, 1)[None])
            worth = value(obs, state, torch.tensor([begins]))
            torch.testing.assert_close(rollout.last_value[row : row + 1], worth)
    assert cuts > 5 and rewards > 15


def test_actions_are_sampled_from_the_policy() -> None:
    learner = policy("a2c", precision="float32")
    agent, count = learner.agent, 3_000
    with torch.no_grad():
        agent.policy.get_parameter("actor.weight").zero_()
        agent.policy.get_parameter("actor.bias").copy_(torch.tensor([0.0, 1.0, 2.0]))
    obs = {key: value.expand(count, *value.shape[1:]) for key, value in learner.example.items()}
    first = torch.ones(count, dtype=torch.bool)
    action, _, extras = agent.act(obs, agent.core.initial(count), first, explore=True)
    probability = torch.tensor([0.0, 1.0, 2.0]).softmax(0)
    shares = torch.bincount(action, minlength=3) / count
    torch.testing.assert_close(shares, probability, atol=0.03, rtol=0)
    torch.testing.assert_close(extras["log_prob"], probability.log()[action])
    greedy, _, _ = agent.act(obs, agent.core.initial(count), first, explore=False)
    assert (greedy == 2).all()


def test_a_seeds_folder_holds_weights_curve_and_metrics(tmp_path: Path) -> None:
    steps: list[int] = []
    train(tmp_path, policy("a2c"), steps.append)
    assert sum(steps) == 320 and max(steps) == 20
    names = sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".")  # digests
    weights = [f"weights-{step:07d}.safetensors" for step in (100, 200, 300, 320)]
    assert names == sorted(["curve.csv", "metrics.json", *weights])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["steps"], metrics["updates"]) == (320, 16)
    episodes = list(csv.DictReader((tmp_path / "curve.csv").open()))
    assert len(episodes) == metrics["games"] > 3
    assert all(int(episode["step"]) % 4 == 0 for episode in episodes)


@EVERY
@pytest.mark.parametrize("mask", [False, True])
def test_a_killed_run_ends_in_the_same_bytes(
    name: str, mask: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted twice, between checkpoints, and trained once more when it is done."""

    def fresh() -> Policy:
        return joint(name, monkeypatch) if mask else policy(name)

    class KilledError(Exception):
        pass

    def kill(limit: int) -> Callable[[int], None]:
        done = 0

        def progress(steps: int) -> None:
            nonlocal done
            done += steps
            if done >= limit:
                raise KilledError

        return progress

    train(tmp_path / "whole", fresh())
    for limit in (150, 260):
        with pytest.raises(KilledError):
            train(tmp_path / "killed", fresh(), kill(limit))
    train(tmp_path / "killed", fresh())
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    train(tmp_path / "killed", fresh())
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("net", [top_down.Config(heads=2), impala_resnet.Config(lstm=True)])
def test_a_killed_run_with_a_memory_ends_in_the_same_bytes(
    net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of a rollout, which is then collected again."""
    monkeypatch.setattr(fakes.Chain, "size", fakes.LARGE)
    config = replace(CONFIGS["impala"], steps=120)
    step, calls = fakes.Chain.step, 0

    class KilledError(Exception):
        pass

    def killed(self: fakes.Chain, action: np.int64) -> Any:
        nonlocal calls
        calls += 1
        if calls == 190:  # 120 of the whole run and 70 of the other
            raise KilledError
        return step(self, action)

    monkeypatch.setattr(fakes.Chain, "step", killed)
    policies = [
        fakes.policy(config, fakes.LargePixels(), agent="impala", net=net) for _ in range(3)
    ]
    train(tmp_path / "whole", policies[0], resume_every=20)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", policies[1], resume_every=20)
    train(tmp_path / "killed", policies[2], resume_every=20)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_memory_that_is_nan_ends_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes.Chain, "size", fakes.LARGE)
    net, config = impala_resnet.Config(lstm=True), replace(CONFIGS["impala"], steps=120)
    learner = fakes.policy(config, fakes.LargePixels(), agent="impala", net=net)
    act = learner.agent.act

    def poisoned(*inputs: Any, **keys: Any) -> Any:
        action, state, extras = act(*inputs, **keys)
        return action, state | {"memory": state["memory"] * torch.nan}, extras

    monkeypatch.setattr(learner.agent, "act", poisoned)
    with pytest.raises(DivergedError, match="the policy is not finite"):
        train(tmp_path, learner)


@EVERY
def test_a_joint_mask_is_trained_with_the_agent(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loss is logged; the saved weights are those of the acting network alone."""
    learner, logged = joint(name, monkeypatch), list[dict[str, Tensor]]()
    log = run.Run.log

    def log_and_record(self: run.Run, scalars: Mapping[str, Tensor]) -> None:
        logged.append(dict(scalars))
        log(self, scalars)

    monkeypatch.setattr(run.Run, "log", log_and_record)
    before = {key: value.clone() for key, value in learner.agent.policy.state_dict().items()}
    train(tmp_path, learner)
    present = ["attention_loss" in scalars for scalars in logged]
    assert present == [False] * 3 + [True] * (len(logged) - 3) and len(present) > 3
    weights = load_file(tmp_path / "weights-0000320.safetensors")
    assert weights.keys() == before.keys()
    masks = [key for key in weights if ".mask." in key]
    assert len(masks) == 14 and not any(torch.equal(weights[key], before[key]) for key in masks)


def test_a_mask_that_is_nan_ends_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = joint("a2c", monkeypatch)
    monkeypatch.setattr(
        "rl.auxiliary.attention_loss", lambda *_, **__: torch.tensor(torch.nan, requires_grad=True)
    )
    with pytest.raises(DivergedError, match="the attention loss is not finite"):
        train(tmp_path, learner)


def test_an_environment_that_dies_costs_the_steps_since_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "whole", policy("a2c"))
    step, calls = fakes.Chain.step, 0

    def dies(self: fakes.Chain, action: np.int64) -> Any:
        nonlocal calls
        calls += 1
        if calls == 200:
            raise RuntimeError("the emulator crashed")
        return step(self, action)

    monkeypatch.setattr(fakes.Chain, "step", dies)
    with pytest.raises(RuntimeError, match="the emulator crashed"):
        train(tmp_path / "died", policy("a2c"))
    train(tmp_path / "died", policy("a2c"))
    assert contents(tmp_path / "died") == contents(tmp_path / "whole")


def test_an_unstable_simulation_ends_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unstable(self: fakes.Chain, action: np.int64) -> Any:
        raise UnstableError("unstable", {})

    monkeypatch.setattr(fakes.Chain, "step", unstable)
    with pytest.raises(DivergedError, match="the simulation's state is not finite"):
        train(tmp_path, policy("a2c"))


@EVERY
@pytest.mark.parametrize("what", ["loss", "policy"])
def test_nan_ends_the_seed_and_is_recorded(
    name: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = policy(name)
    update, calls = learner.agent.update, 0

    def poisoned(rollout: Rollout) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        scalars = update(rollout)
        if calls == 3:
            if what == "loss":
                return scalars | {"loss": torch.tensor(float("nan"))}
            with torch.no_grad():
                learner.agent.policy.get_parameter("actor.weight").fill_(float("nan"))
        return scalars

    monkeypatch.setattr(learner.agent, "update", poisoned)
    with pytest.raises(DivergedError, match=f"the {what} is not finite"):
        train(tmp_path, learner)
    assert (
        f"the {what} is not finite" in json.loads((tmp_path / "failed.json").read_text())["error"]
    )


def test_features_that_are_nan_are_reported_as_the_encoders(tmp_path: Path) -> None:
    class Broken(fakes.Tokens):
        def forward(self, image: Tensor) -> dict[str, Tensor]:
            obs = super().forward(image)
            return obs | {"x": obs["x"] / (0 if self.frames > 40 else 1)}

    with pytest.raises(DivergedError, match="the encoder's features are not finite"):
        train(tmp_path, fakes.policy(CONFIGS["a2c"], Broken(), agent="a2c"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 0}, "num_envs: 0, must be at least 1"),
        ({"unroll": 0}, "unroll: 0, must be at least 1"),
        ({"steps": 1_000_001}, r"steps: 1000001, must be a multiple of num_envs \* unroll"),
        ({"gamma": 1.5}, "gamma: 1.5, must be between 0 and 1"),
        ({"rewards": "clipped"}, "rewards: 'clipped', must be sign or raw"),
        ({"precision": "half"}, "precision: 'half', must be auto or float32"),
    ],
)
@pytest.mark.parametrize("config", [a2c.Config, ppo.Config, acktr.Config])
def test_impossible_configs_are_refused(
    config: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_minibatches_divide_a_rollout() -> None:
    with pytest.raises(ValueError, match="minibatches: 3, must divide num_envs"):
        ppo.Config(minibatches=3)


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    learner = policy("a2c")
    learner.encoder.image_shape = (3, 9, 9)
    with pytest.raises(FoveaError, match="encoder: is for images"):
        train(tmp_path, learner)


def test_raw_rewards_are_not_clipped(tmp_path: Path) -> None:
    highest: dict[str, float] = {}
    for rewards in ("sign", "raw"):
        learner = favour_right(policy("a2c", rewards=rewards, gamma=0.0))
        agent = Recorder(learner.agent)
        train(tmp_path / rewards, replace(learner, agent=cast(Any, agent)))
        highest[rewards] = max(float(rollout.reward.max()) for rollout in agent.rollouts)
    assert highest == {"sign": 1.0, "raw": 3.0}
