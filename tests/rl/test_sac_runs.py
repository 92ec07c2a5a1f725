"""SAC in an environment: training, stopping and resuming, and evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from safetensors.torch import load_file

from pretrain.encoder import Obs
from rl import off_policy, play
from rl.action_log import ActionLog
from rl.actor import random_action
from rl.nets import deep_cnn
from rl.policy import Policy
from rl.replay import Replay
from tests.rl import fakes
from tests.rl.point import ACTIONS, SMALL, Point, make_point, policy, single_point


@pytest.fixture(autouse=True)
def _point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.envs.make", make_point)
    monkeypatch.setattr("datasets.envs.single", single_point)


def train(folder: Path, policy: Policy, **every: Any) -> dict[str, bytes]:
    folder.mkdir(exist_ok=True)
    settings: Any = {"checkpoint_every": 60, "resume_every": 25} | every
    off_policy.train(policy, folder=folder, progress=fakes.ignore, **settings)
    files = [path for path in folder.rglob("[!.]*") if path.is_file()]  # digests beside them apart
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_a_point_learns_to_reach_the_goal(tmp_path: Path) -> None:
    config = replace(
        SMALL, steps=1_500, learn_start=200, replay_capacity=1_500, batch_size=64, hidden=32,
        learning_rate=3e-3, gamma=0.9,
    )  # fmt: skip
    learner = policy(config)
    settings: Any = dict(episodes=20, seed=9, epsilon=0.0, progress=fakes.ignore)
    before = play.evaluate(learner, **settings)
    train(tmp_path, learner, checkpoint_every=10_000, resume_every=10_000)
    after = play.evaluate(learner, **settings)
    assert np.mean(before["successes"]) < 0.6
    assert np.mean(after["successes"]) >= 0.95
    assert np.mean(after["returns"]) > np.mean(before["returns"]) + 3
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["last_100_games_success"] > 0.5


def test_pixels_train_like_states(tmp_path: Path) -> None:
    encoder, net = fakes.Pixels(), deep_cnn.Config(layers=3, filters=4, width=8)
    config = replace(SMALL, steps=50)
    files = train(tmp_path, policy(config, encoder, net=net))
    assert {"weights-0000050.safetensors", "metrics.json"} <= files.keys()


@pytest.mark.parametrize("at", [1, 59, 76, 160])
def test_a_run_stopped_after_any_step_ends_in_the_same_bytes(at: int, tmp_path: Path) -> None:
    """Including the file of actions for a source of frames."""
    logs = {name: tmp_path / name / "actions.safetensors" for name in ("whole", "stopped")}
    whole = train(tmp_path / "whole", policy(), resume_every=90, log=ActionLog(logs["whole"]))
    actions = load_file(logs["whole"])
    assert actions["action"].shape == (160, ACTIONS)
    assert actions["end"][[0, -1]].tolist() == [10, 160]
    assert whole["curve.csv"].startswith(b"step,return,length,success\n10,")
    done, folder = 0, tmp_path / "stopped"
    folder.mkdir()

    class StopError(Exception):
        pass

    def stop(more: int) -> None:
        nonlocal done
        done += more
        if done == at:
            raise StopError

    with pytest.raises(StopError):
        off_policy.train(
            policy(), folder=folder, checkpoint_every=60, resume_every=25, progress=stop,
            log=ActionLog(logs["stopped"]),
        )  # fmt: skip
    assert train(folder, policy(), log=ActionLog(logs["stopped"])) == whole


def test_replay_gets_raw_rewards_float_actions_and_true_last_states(tmp_path: Path) -> None:
    rows: list[tuple[Any, ...]] = []
    learner = policy(replace(SMALL, steps=45))
    real = Replay.add

    def add(self: Any, obs: Obs, action: Any, reward: float, **ends: Any) -> None:
        rows.append((obs["state"][0], action, reward, ends))
        real(self, obs, action, reward, **ends)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replay, "add", add)
        train(tmp_path, learner)
    for number, (now, action, reward, ends) in enumerate(rows):
        assert action.shape == (2,) and action.dtype == np.float32
        assert not ends["terminated"] and ends["truncated"] == (number % 10 == 9)
        following = ends["final"]["state"][0] if ends["truncated"] else rows[number + 1][0] \
            if number + 1 < len(rows) else None  # fmt: skip
        if following is not None:
            moved = np.clip(now[:2].numpy() + 0.3 * action, -1, 1)
            np.testing.assert_allclose(following[:2], moved, atol=1e-6)
            distance = float((following[:2] - following[2:]).abs().max())
            assert reward == pytest.approx(-distance, abs=1e-6)


def test_an_encoder_of_the_state_needs_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = []
    real = Point.__init__

    def note(self: Point, seed: Sequence[int], images: bool) -> None:
        flags.append(images)
        real(self, seed, images)

    monkeypatch.setattr(Point, "__init__", note)
    play.evaluate(policy(), episodes=2, seed=0, epsilon=0.0, progress=fakes.ignore)
    play.evaluate_random("fake/Point", episodes=2, seed=0, progress=fakes.ignore)
    assert flags == [False] * 4
    frames = play.record(policy(), seed=0, epsilon=0.0)
    assert flags[4:] == [True] and len(frames) == 10 and frames[3].image.any()


def test_random_actions_are_uniform_and_epsilon_mixes_them_in() -> None:
    space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    random = np.random.default_rng(0)
    actions = np.stack([random_action(space, random) for _ in range(2_000)])
    assert actions.dtype == np.float32 and np.abs(actions).max() <= 1
    assert np.abs(actions.mean(0)).max() < 0.05 and np.abs(actions.std(0) - 3**-0.5).max() < 0.02
    uniform = play.evaluate_random("fake/Point", episodes=3, seed=5, progress=fakes.ignore)
    mixed = play.evaluate(policy(), episodes=3, seed=5, epsilon=1.0, progress=fakes.ignore)
    assert mixed == uniform and len(uniform["successes"]) == 3
