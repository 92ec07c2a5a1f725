"""The contract of every environment and every source of frames."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pickle
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Discrete, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from PIL import Image
from safetensors.numpy import save_file

from datasets import envs
from datasets.recordings import FOLDER
from datasets.shards import FrameSet, read_frames
from datasets.sources import files
from tests.contracts.components import SMALL, components, game_of, of, same_files, small
from tests.datasets.recorded import recorded, write_flat

# `files` has images, but nothing to play.
played = pytest.mark.parametrize(
    "component", [name for name in components("datasets.envs") if name != "datasets.envs.files"]
)


def make_env(component: str, num_envs: int = 2, seed: int = 0) -> VectorEnv[Any, Any, Any]:
    module = importlib.import_module(component)
    config = small(module.Config, game=game_of(component), num_envs=num_envs)
    env: VectorEnv[Any, Any, Any] = module.make(config, seed)
    return env


def make_single(component: str, seed: int, index: int) -> Any:
    module = importlib.import_module(component)
    return module.single(small(module.Config, game=game_of(component)), seed, index)


def action(space: Space[Any], number: int) -> Any:
    """0, 1, 0, 1 …, or all of a continuous action half way down, half way up, …"""
    if isinstance(space, Discrete):
        return number % 2
    return np.full(space.shape, number % 2 - 0.5, space.dtype)


def play(env: VectorEnv[Any, Any, Any], steps: int) -> list[Any]:
    """Observations, rewards and ends under the same actions in every environment."""
    with closing(env):
        results: list[Any] = [env.reset()]
        for number in range(steps):
            one = action(env.single_action_space, number)
            results.append(env.step(np.stack([one] * env.num_envs)))
        return results


@played
def test_a_suite_is_a_vector_env_with_same_step_resets(component: str) -> None:
    """The step that ends an episode returns the first frame of the next episode; the last frame is
    in `info`.
    """
    module, env = importlib.import_module(component), make_env(component)
    suite = component.rsplit(".", 1)[1]
    assert isinstance(env, VectorEnv) and env.num_envs == 2
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert list(module.games()) == sorted(module.games()) == envs.games(suite)
    discrete = isinstance(env.single_action_space, Discrete)
    assert envs.actions(f"{suite}/{game_of(component)}") == (
        "discrete" if discrete else "continuous"
    )
    shape = envs.image_shape(f"{suite}/{game_of(component)}")
    results = play(env, SMALL["horizon"])
    for obs, *_ in results:
        assert obs.shape == (2, *shape[1:], shape[0]) and obs.dtype == np.uint8
    for _, reward, terminated, truncated, info in results[1:-1]:
        assert reward.shape == (2,) and not terminated.any() and not truncated.any()
        assert "final_obs" not in info
        assert all(len(info[name]) == 2 for name in module.FRAME_INFO)
    obs, _, terminated, truncated, info = results[-1]
    assert truncated.all() and not terminated.any()
    assert set(module.FRAME_INFO) <= info["final_info"].keys()
    for index in range(2):
        assert info["final_obs"][index].shape == obs[index].shape
        assert not np.array_equal(info["final_obs"][index], obs[index])


@played
def test_an_environment_depends_on_seed_and_index_alone(component: str) -> None:
    pair, three, other = (
        np.stack([step[0] for step in play(make_env(component, number, seed), 12)])
        for number, seed in ((2, 0), (3, 0), (2, 1))
    )
    assert np.array_equal(pair, three[:, :2])
    assert not np.array_equal(pair, other) and not np.array_equal(pair[:, 0], pair[:, 1])
    for index in range(2):
        with closing(make_single(component, 0, index)) as single:
            actions = [action(single.action_space, number) for number in range(6)]
            observations = [single.reset()[0]] + [single.step(one)[0] for one in actions]
        assert np.array_equal(np.stack(observations), pair[:7, index])


@played
def test_an_environment_without_images_is_the_same(component: str) -> None:
    name = f"{component.rsplit('.', 1)[1]}/{game_of(component)}"
    rendered, black = (
        envs.single(name, seed=0, index=1, images=images) for images in (True, False)
    )
    (image, info), (nothing, same) = rendered.reset(), black.reset()
    for number in range(3):
        assert image.any() and not nothing.any() and image.shape == nothing.shape
        assert all(np.array_equal(info[key], same[key]) for key in envs.frame_info(name))
        one = action(rendered.action_space, number)
        image, *rest, info = rendered.step(one)
        nothing, *others, same = black.step(one)
        assert rest == others
    rendered.close()
    black.close()


@of("datasets.envs")
def test_options_of_a_name_are_fields_of_the_suite(component: str) -> None:
    module, suite = importlib.import_module(component), component.rsplit(".", 1)[1]
    name = f"{suite}/{game_of(component)}"
    defaults = {field.name: field.default for field in dataclasses.fields(module.Config)}
    expected = {"suite": suite} | {key: defaults[key] for key in module.OPTIONS}
    assert envs.rendering(name) == expected
    for key in (*module.OPTIONS, *module.GAME_OPTIONS):
        assert envs.rendering(f"{name}?{key}={defaults[key]}") == expected
        with pytest.raises(ValueError, match=f"{key}: 'no such thing'"):
            envs.check(f"{name}?{key}=no such thing")
    with pytest.raises(ValueError, match="no option 'colour'"):
        envs.check(f"{name}?colour=red")


@of("datasets.envs")
def test_a_suite_states_how_its_images_are_made(component: str) -> None:
    module, suite = importlib.import_module(component), component.rsplit(".", 1)[1]
    name = f"{suite}/{game_of(component)}"
    stated = envs.preprocessing(name)
    assert list(stated)[:3] == ["env", "shape", "dtype"]
    assert set(stated) == {"env", "shape", "dtype", *envs.PREPROCESSING}
    assert stated == json.loads(json.dumps(stated)) and stated["env"] == name
    assert tuple(stated["shape"]) == envs.image_shape(name)
    assert set(stated["options"]) == {*module.OPTIONS, *module.GAME_OPTIONS}


@played
def test_an_environment_resumes_from_its_state(component: str) -> None:
    env, other = make_single(component, 0, 0), make_single(component, 5, 1)
    env.reset()
    actions = [action(env.action_space, number) for number in range(3)]
    image = env.step(actions[1])[0]
    state = env.get_state()
    expected = [env.step(one) for one in actions]
    other.set_state(state)
    assert np.array_equal(other.observe()[0], image)
    for one, (image, *rest) in zip(actions, expected, strict=True):
        again, *others = other.step(one)
        assert np.array_equal(image, again) and rest[:3] == others[:3]
    env.close()
    other.close()


# Sources that Atari has not.
SUITES = {f"datasets.sources.{component}": "metaworld/reach" for component in ("expert", "replay")}


@pytest.fixture(autouse=True)
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a source of recordings reads."""
    monkeypatch.chdir(tmp_path)
    write_flat(FOLDER, [recorded(1, 10), recorded(2, 20)], "Pong")
    for number in range(5):
        path = Path(files.Config().path) / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 9, 3), 40 * number, np.uint8)).save(path)


def streams_of(component: str, env: str, count: int, folder: Path) -> Any:
    """Streams as the stage `collect` makes them; a source that replays a learner's actions gets
    arbitrary ones.
    """
    module, inputs = importlib.import_module(component), {}
    if module.ACTION_LOG:
        actions = np.random.default_rng(0).uniform(-1, 1, (SMALL["steps"], 4)).astype(np.float32)
        with closing(envs.single(env, seed=0, index=0, images=False)) as played:
            played.reset()
            rewards = np.array([float(played.step(one)[1]) for one in actions])
        ends = np.zeros(0, np.int64)  # fewer steps than an episode has
        arrays = {"action": actions, "reward": rewards, "end": ends}
        folder.mkdir(exist_ok=True)
        save_file(arrays, folder / module.ACTION_LOG)
        inputs = {"learner": folder}
    return module.streams(small(module.Config), env, count, **inputs)


@of("datasets.sources")
@pytest.mark.parametrize("count", [1, 5])
def test_a_sources_streams_write_the_configured_number_of_frames(
    component: str, count: int, tmp_path: Path
) -> None:
    """They can be sent to other processes, run in any order, and report each frame once."""
    env = SUITES.get(component, "atari/Pong")

    def run(folder: Path, order: int) -> FrameSet:
        streams = streams_of(component, env, count, tmp_path / "learner")
        counts: list[int] = []
        folder.mkdir(exist_ok=True)
        for stream in pickle.loads(pickle.dumps(streams))[::order]:
            stream.run(folder, counts.append)
        assert sum(counts) == count
        return read_frames(folder)

    frames = run(tmp_path / "a", 1)
    assert len(frames) == count
    channels, *size = envs.image_shape(env)
    assert frames.images.shape[1:] == (*size, channels)
    own = importlib.import_module(component).FRAME_INFO
    assert set(own or envs.frame_info(env)) == set(frames.info)
    run(tmp_path / "b", -1)
    assert same_files(tmp_path / "a", tmp_path / "b")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    run(tmp_path / "a", 1)  # every shard exists already
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()} == before


@of("datasets.sources")
def test_a_source_refuses_an_unknown_environment(component: str, tmp_path: Path) -> None:
    env = SUITES.get(component, "atari/Pong")
    with pytest.raises(ValueError, match=f"did you mean .*{env.split('/')[1]}"):
        streams_of(component, f"{env}g", 5, tmp_path)
    with pytest.raises(ValueError, match="count"):
        streams_of(component, env, 0, tmp_path)
