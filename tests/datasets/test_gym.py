"""Environments of Gymnasium, and such as users write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import gymnasium
import numpy as np
import pytest

from datasets import envs
from datasets.errors import FoveaError
from datasets.sources import random
from pipeline.config.closure import components
from pipeline.config.tables import Entry, Frames

OWN = "gym/tests.datasets.own_games:own"


def played(name: str, steps: int, action: int = 1) -> tuple[Any, list[Any]]:
    env = envs.single(f"{OWN}/{name}", seed=0, index=0)
    return env, [env.reset(), *(env.step(action) for _ in range(steps))]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gym/Pendulum-v1", r"actions are Box\(-2.0, 2.0, .*must be Dis.*RescaleAction"),
        ("gym/LunarLander-v3", "cannot be made .* Box2D is not installed"),
        ("gym/Hopper-v2", "cannot be made .* moved to the gymnasium-robotics"),
        ("gym/Reacher-v9", "no such game; did you mean Reacher-v5"),
        ("gym/nowhere:Game-v0", "the module nowhere cannot be imported"),
        (f"{OWN}/Nothing-v0", "no such game"),
        (f"{OWN}/Text-v0", "has no render mode 'rgb_array'|cannot be made"),
        (f"{OWN}/Table-v0", r"actions are Box\(-1.0, 1.0, \(2, 2\).*wrapper"),
        ("gym/Reacher-v5?height=5000", "height: '5000', must be a number of pixels, 1 to 1024"),
        ("gym/Reacher-v5?width=064", "width: '064'"),
    ],
)
def test_others_are_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(FoveaError, match=f"(?s){re.escape(name.partition('?')[0])}.*({message})"):
        envs.check(name)


def test_an_environment_without_its_library_is_refused_where_it_renders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pygame", None)
    env = envs.single("gym/CartPole-v1", seed=0, index=0)
    with pytest.raises(FoveaError, match=r"CartPole-v1'.*pygame is not installed.*install what"):
        env.reset()


def test_a_users_environment_is_played_as_it_is() -> None:
    """Action 1 of ours is 5 of its own; images are resized; the return ends with the episode."""
    env, results = played("Runner-v0", 20)
    own: Any = gymnasium.make("own/Runner-v0", render_mode="rgb_array")
    assert envs.actions(f"{OWN}/Runner-v0") == "discrete" and env.action_space.n == 2
    own.reset(seed=int(np.random.default_rng((0, 0)).integers(2**31)))
    for image, *_ in results:
        resized = cv2.resize(own.render(), (96, 96), interpolation=cv2.INTER_LINEAR)
        assert np.array_equal(image, resized) and image.max() > 200
        _, reward, over, *_ = own.step(5)
        if over:
            break
    index = next(k for k, result in enumerate(results) if k and result[2])
    _, reward, _, truncated, info = results[index]
    assert reward == 1 and not truncated
    assert info == {"game_over": True, "game_return": 1.0, "game_length": index}
    assert index < 10


def test_sides_are_height_and_width() -> None:
    name = f"{OWN}/Runner-v0?height=10&width=30"
    assert envs.image_shape(name) == (3, 10, 30)
    assert envs.single(name, seed=0, index=0).reset()[0].shape == (10, 30, 3)


def test_mujoco_renders_at_the_configured_size() -> None:
    env: Any = envs.single("gym/Hopper-v5?height=24&width=40", seed=0, index=0)
    image, _ = env.reset()
    assert env._env.render().shape == image.shape == (24, 40, 3) and image.std() > 10


def test_a_resumed_episode_is_the_same_one() -> None:
    env, _ = played("Runner-v0", 2, action=0)
    state = env.get_state()
    other: Any = envs.single(f"{OWN}/Runner-v0", seed=3, index=4)
    other.set_state(state)
    assert np.array_equal(other.observe()[0], env.observe()[0])
    for _ in range(30):  # beyond the end of the episode
        one, two = (each.step(1) for each in (env, other))
        assert np.array_equal(one[0], two[0]) and one[1:] == two[1:]
        if one[2]:
            assert np.array_equal(env.reset()[0], other.reset()[0])


def test_an_environment_that_is_not_deterministic_is_not_resumed() -> None:
    env, _ = played("Wild-v0", 0)
    for number in range(12):
        env.step(number % 2)
    state = env.get_state()
    other = envs.single(f"{OWN}/Wild-v0", seed=0, index=0)
    with pytest.raises(FoveaError, match=r"own/Wild-v0'.*12 actions gave other .*not determ"):
        other.set_state(state)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Gray-v0", r"renders uint8 \(20, 20\), must be one image"),
        ("Broken-v0", "reward at step 1 .* is nan, must be finite"),
    ],
)
def test_a_faulty_environment_is_named(name: str, message: str) -> None:
    with pytest.raises(FoveaError, match=f"own/{name}'.*{message}"):
        played(name, 1)


def test_an_action_that_is_not_finite_is_refused() -> None:
    env = envs.single("gym/Reacher-v5", seed=0, index=0, images=False)
    env.reset()
    with pytest.raises(FoveaError, match=r"Reacher-v5'.*step 1, \[nan, 0.0\], is not finite"):
        env.step(np.array([np.nan, 0], np.float32))


def test_the_suite_is_in_the_code_stamp() -> None:
    config = random.Config()
    entry = Entry("frames", "own", Frames(f"{OWN}/Runner-v0", "random", 5), config)
    assert "datasets.envs.gym" in components(entry)


def test_the_readmes_environment_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wraps one of MuJoCo's, whose renderer is chosen all the same."""
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (code,) = re.findall(r"(?s)```python\n([^`]*gymnasium.register[^`]*)```", readme)
    (name,) = re.findall(r'env: "(gym/mygames:[^"]*)"', readme)
    (tmp_path / "mygames.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    env = envs.single(name, seed=0, index=0)
    image, _ = env.reset()
    assert image.shape == (48, 48, 3) and image.std() > 10
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    assert not np.array_equal(env.step(np.ones(1, np.float32))[0], image)
    env.close()
