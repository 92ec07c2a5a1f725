"""The replay source: evenly spaced frames of the learner's episodes, rendered afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from datasets import envs
from datasets.errors import FoveaError
from datasets.shards import read_frames
from datasets.sources.replay import ACTION_LOG, Config, streams

ENV, STEPS = "metaworld/reach?view=upright", 1_080


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """Random actions over two whole episodes and part of a third, and their observations and
    rewards.
    """
    folder = tmp_path_factory.mktemp("learned")
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, 4)).astype(np.float32)
    env = envs.make(ENV, num_envs=1, seed=3, images=False)
    record = []
    _, info = env.reset()
    for action in actions:
        state = info["state"][0]
        _, reward, _, truncated, info = env.step(action[None])
        record.append((state, action, float(reward[0]), bool(truncated[0])))
    env.close()
    keep(folder, record, np.array([reward for *_, reward, _ in record]))
    return folder, record


def keep(folder: Path, record: list[Any], rewards: NDArray[np.float64]) -> None:
    """The learner's files, with these rewards."""
    actions = np.stack([action for _, action, *_ in record])
    arrays = {"action": actions, "reward": rewards, "end": np.array([500, 1_000])}
    save_file(arrays, folder / ACTION_LOG)


def test_frames_are_the_trainings_evenly_spread(
    learner: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    """Also where a stream begins in a later episode, without playing the first one."""
    folder, record = learner
    for part in streams(Config(seed=3, streams=2, steps=STEPS), ENV, 40, folder):
        part.run(tmp_path, lambda _: None)
    frames = read_frames(tmp_path)
    numbers = [i * STEPS // 40 for i in range(40)]
    assert len(frames) == 40 and frames.stream.tolist() == [0] * 20 + [1] * 20
    for i, number in enumerate(numbers):
        state, action, reward, truncated = record[number]
        np.testing.assert_array_equal(frames.info["state"][i], state)
        np.testing.assert_array_equal(frames.action[i], action)
        assert frames.reward[i] == np.float32(reward) and frames.truncated[i] == truncated
        assert frames.step[i] == number % 500
        assert frames.episode[i] == number // 500 - (1 if i >= 20 else 0)
    assert min(image.std() for image in frames.images) > 20
    assert not np.array_equal(frames.images[0], frames.images[1])


def test_only_recorded_frames_are_rendered(
    learner: tuple[Path, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets.envs.metaworld import MetaWorldTask

    images: list[Any] = []
    real = MetaWorldTask.image

    def image(self: MetaWorldTask) -> Any:
        images.append(real(self))
        return images[-1]

    monkeypatch.setattr(MetaWorldTask, "image", image)
    (part,) = streams(Config(seed=3, streams=1, steps=STEPS), ENV, 6, learner[0])
    assert len(list(part.frames(2))) == 4
    assert len(images) == 4


def test_other_rewards_than_the_learner_s_are_refused(
    learner: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    """As on another processor, where one step differs in its last bit."""
    _, record = learner
    rewards = np.array([reward for *_, reward, _ in record])
    rewards[42] = np.nextafter(rewards[42], np.inf)
    keep(tmp_path, record, rewards)
    (part,) = streams(Config(seed=3, streams=1, steps=STEPS), ENV, 40, tmp_path)
    frames = part.frames(0)
    assert [next(frames).step for _ in range(2)] == [0, 27]  # the next is step 54
    with pytest.raises(FoveaError, match=r"actions\.safetensors: at step 42 .*collect again"):
        next(frames)


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FoveaError, match=r"atari/Pong must have a state.*Meta-World"):
        streams(Config(), "atari/Pong", 10, tmp_path)
    with pytest.raises(ValueError, match="count: 200, must be 1 to the learner's 100"):
        streams(Config(steps=100, learn_start=50), ENV, 200, tmp_path)
    with pytest.raises(ValueError, match="steps: 1000, must exceed learn_start 1000"):
        Config(steps=1_000)
    (part, *_) = streams(Config(), ENV, 10, tmp_path)
    with pytest.raises(FoveaError, match=r"actions\.safetensors.*collect again"):
        next(part.frames(0))
    (tmp_path / ACTION_LOG).write_bytes(b"cut sho")
    with pytest.raises(FoveaError, match=r"actions\.safetensors.*collect again"):
        next(part.frames(0))
