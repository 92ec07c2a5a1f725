"""The Atari wrapper against a plain loop over the emulator, and against other wrappers."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ale_py
import cv2
import gymnasium
import numpy as np
import pytest
from ale_py.vector_env import AtariVectorEnv
from gymnasium.wrappers import AtariPreprocessing
from numpy.typing import NDArray

from datasets import envs
from datasets.envs.atari import AtariGame, Config, games, make, single
from datasets.errors import FoveaError

Step = tuple[NDArray[np.uint8], float, bool, int]  # image, reward, terminated, lives


def actions(config: Config, count: int, seed: int = 7) -> list[int]:
    n = AtariGame(config).action_space.n  # type: ignore[attr-defined]  # Discrete
    return [int(action) for action in np.random.default_rng(seed).integers(n, size=count)]


def reference(config: Config, noops: list[int], played: list[int]) -> Iterator[Step]:
    """A second, slow implementation of the wrapper as a list of raw frames, without any shared
    code.
    """
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(Path(ale_py.roms.__file__).parent / f"{games()[config.game]}.bin")
    codes = [action.value for action in ale.getMinimalActionSet()]

    def press(code: int) -> tuple[float, list[NDArray[np.uint8]]]:
        reward, raw = 0.0, []
        for _ in range(4):
            reward += ale.act(code)
            raw.append(ale.getScreenRGB())
        return reward, raw

    def merged(raw: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        image = cv2.resize(np.max(raw[-2:], axis=0), (96, 96), interpolation=cv2.INTER_LINEAR)
        return np.asarray(image, np.uint8)

    def new_game(count: int) -> list[NDArray[np.uint8]]:
        ale.reset_game()
        for _ in range(count):
            ale.act(0)
        return press(1)[1] if 1 in codes else [ale.getScreenRGB()]

    yield merged(new_game(noops.pop(0))), 0.0, False, ale.lives()
    for action in played:
        lives = ale.lives()
        reward, raw = press(codes[action])
        if 1 in codes and 0 < ale.lives() < lives:
            extra, raw = press(1)
            reward += extra
        over = ale.game_over()
        yield merged(raw), reward, over, ale.lives()
        if over:
            yield merged(new_game(noops.pop(0))), 0.0, False, ale.lives()


def ours(config: Config, seed: int, played: list[int]) -> Iterator[Step]:
    game = AtariGame(config, seed)
    image, info = game.reset()
    yield image, 0.0, False, info["lives"]
    for action in played:
        image, reward, terminated, truncated, info = game.step(action)
        assert not truncated
        yield image, reward, terminated, info["lives"]
        if terminated:
            image, info = game.reset()
            yield image, 0.0, False, info["lives"]


@pytest.mark.parametrize("game", ["Breakout", "Frostbite", "MsPacman"])
def test_equals_a_plain_loop_over_the_emulator(game: str) -> None:
    """Breakout needs FIRE after each of five lives and several episodes end; MsPacman has
    no FIRE.
    """
    config = Config(game)
    played = actions(config, 250)
    generator = np.random.default_rng(3)
    noops = [int(generator.integers(1, 31)) for _ in range(20)]
    pairs = list(zip(ours(config, 3, played), reference(config, noops, played), strict=True))
    for mine, plain in pairs:
        np.testing.assert_array_equal(mine[0], plain[0])
        assert mine[1:] == plain[1:]
    assert sum(plain[1] for _, plain in pairs) > 0
    assert len({plain[3] for _, plain in pairs}) > 1


def gymnasium_wrapper(game: str, size: tuple[int, int]) -> AtariPreprocessing:
    gymnasium.register_envs(ale_py)
    raw = gymnasium.make(f"ALE/{game}-v5", frameskip=1, repeat_action_probability=0.0)
    return AtariPreprocessing(raw, noop_max=0, frame_skip=4, screen_size=size, grayscale_obs=False)


def test_gymnasium_has_the_same_maxima_and_another_resize() -> None:
    """At the screen's own size theirs does not resize: equal after our resize. At 96x96 it averages
    areas.
    """
    played = actions(Config("MsPacman"), 150)
    for size, equal in (((160, 210), True), ((96, 96), False)):
        theirs = gymnasium_wrapper("MsPacman", size)
        game = AtariGame(Config("MsPacman", noop_max=0))
        images = [(game.reset()[0], theirs.reset()[0])]
        for action in played:
            image, reward, terminated, _, info = game.step(action)
            image2, reward2, terminated2, _, info2 = theirs.step(action)
            assert (reward, terminated, info["lives"]) == (reward2, terminated2, info2["lives"])
            images.append((image, image2))
        assert all(np.array_equal(ours, bilinear(other)) for ours, other in images) == equal


def bilinear(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, (96, 96), interpolation=cv2.INTER_LINEAR), np.uint8)


def ale_vector(**options: Any) -> AtariVectorEnv:
    settings: dict[str, Any] = {
        "img_height": 210,
        "img_width": 160,
        "grayscale": False,
        "stack_num": 1,
        "frameskip": 4,
        "repeat_action_probability": 0.0,
        "reward_clipping": False,
        "use_fire_reset": False,
    }
    return AtariVectorEnv("ms_pacman", 1, **(settings | options))


def test_ale_vector_has_the_same_maxima_with_no_resize_and_no_noops() -> None:
    """The cases in which it could be used, if resize and no-ops were not part of the paper's
    wrapper.
    """
    vector = ale_vector(noop_max=0)
    game = AtariGame(Config("MsPacman", noop_max=0))
    first = vector.reset()[0].reshape(210, 160, 3)
    np.testing.assert_array_equal(bilinear(first), game.reset()[0])
    for action in actions(Config("MsPacman"), 150):
        theirs, rewards, *_ = vector.step(np.array([action]))
        image, reward, *_ = game.step(action)
        np.testing.assert_array_equal(bilinear(theirs.reshape(210, 160, 3)), image)
        assert rewards[0] == reward


def test_ale_vector_resizes_by_area_and_may_start_without_noops() -> None:
    """The reasons against it: other pixels at 96x96, and starts that the paper's wrapper lacks."""
    vector = ale_vector(noop_max=0, img_height=96, img_width=96)
    game = AtariGame(Config("MsPacman", noop_max=0))
    theirs = vector.reset()[0].reshape(96, 96, 3).astype(int)
    assert np.abs(theirs - game.reset()[0]).max() > 8
    starts = ale_vector(noop_max=30)
    plain = ale_vector(noop_max=0).reset()[1]["episode_frame_number"][0]
    starts.reset(seed=0)
    counts = {int(starts.reset()[1]["episode_frame_number"][0] - plain) for _ in range(60)}
    assert 0 in counts and counts <= set(range(30))


def test_noops_are_1_to_30() -> None:
    game = AtariGame(Config("MsPacman"), seed=1)
    counts = []
    for _ in range(120):
        game.reset()
        counts.append(game._ale.getEpisodeFrameNumber())
    assert {count - min(counts) for count in counts} == set(range(30))
    game = AtariGame(Config("MsPacman", noop_max=0))
    game.reset()
    assert min(counts) - game._ale.getEpisodeFrameNumber() == 1


@pytest.mark.parametrize("game", ["Breakout", "MsPacman"])
def test_life_loss_ends_cuts_the_same_game_into_episodes(game: str) -> None:
    """Same actions, same emulator: a lost life is terminated, and only the last one is
    game over.
    """
    whole, cut = AtariGame(Config(game), 5), AtariGame(Config(game, life_loss_ends=True), 5)
    _, info = whole.reset()
    cut.reset()
    ends, lives, total = 0, info["lives"], 0.0
    for action in actions(Config(game), 600):
        image, _, over, _, info = whole.step(action)
        image2, _, terminated, _, info2 = cut.step(action)
        assert info2["game_over"] == over
        assert terminated == (over or info["lives"] < lives)
        lives = info["lives"]
        if over:
            assert (info["game_return"], info["game_length"]) == (
                *(info2["game_return"], info2["game_length"]),
            )
            total += info["game_return"]
            image, info = whole.reset()
            lives = info["lives"]
        if terminated:
            ends += 1
            image2, info2 = cut.reset()
        np.testing.assert_array_equal(image, image2)
        np.testing.assert_array_equal(info["ram"], info2["ram"])
    assert ends >= 3 and total > 0


@pytest.mark.parametrize("episodes", [False, True])
def test_a_player_frozen_on_the_last_life_ends_the_game(episodes: bool) -> None:
    """The emulator continues with a demonstration with all lives; its score does not change."""
    game = AtariGame(Config("Frostbite", life_loss_ends=episodes), 0)
    _, info = game.reset()
    played = actions(Config("Frostbite"), 60)
    ends = 0
    for step in range(4_000):
        _, _, terminated, truncated, info = game.step(played[step] if step < len(played) else 0)
        ends += terminated
        if info["game_over"]:
            break
        if terminated:
            game.reset()
    assert terminated and not truncated and ends == (4 if episodes else 1)
    assert info["game_return"] > 0 and info["game_length"] == step + 1
    emulator, random = game._ale, np.random.default_rng(0)
    codes, lives = emulator.getMinimalActionSet(), set()
    for code in random.integers(len(codes), size=4_000):
        assert sum(emulator.act(codes[code]) for _ in range(4)) == 0
        lives.add(emulator.lives())
    assert lives == {1, 4} and not emulator.game_over()
    game.reset()
    assert game._lives == 4 and game._game_length == 0


def test_horizon_truncates_and_does_not_terminate() -> None:
    """The truncated episode's last image is in final_obs, its return in final_info."""
    env = make(Config("MsPacman", num_envs=2, horizon=20), seed=0)
    first, _ = env.reset()
    assert first.shape == (2, 96, 96, 3) and first.dtype == np.uint8
    total = np.zeros(2)
    for step in range(1, 21):
        image, reward, terminated, truncated, info = env.step(np.array([step % 9, 3]))
        total += reward
        assert not terminated.any() and truncated.all() == (step == 20)
    assert info["final_info"]["game_over"].all() and not info["game_over"].any()
    np.testing.assert_array_equal(info["final_info"]["game_return"], total)
    assert (info["final_info"]["game_length"] == 20).all()
    for now, last in zip(image, info["final_obs"], strict=True):
        assert last.shape == now.shape and not np.array_equal(last, now)


def test_environment_i_does_not_depend_on_the_number_of_environments() -> None:
    """Equal episodes for equal (seed, i), in any vector or alone; other episodes for any other
    pair.
    """
    many = make(Config("MsPacman", num_envs=3), seed=4)
    few = make(Config("MsPacman", num_envs=2), seed=4)
    alone = single(Config("MsPacman"), seed=4, index=1)
    images, _ = many.reset()
    np.testing.assert_array_equal(images[:2], few.reset()[0])
    np.testing.assert_array_equal(images[1], alone.reset()[0])
    states = [
        tuple(AtariGame(Config("MsPacman"), pair)._rng.integers(1 << 60, size=2))
        for pair in ((4, 0), (4, 1), (5, 0), (5, 1))
    ]
    assert len(set(states)) == 4


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    """A state after writing and reading: arrays unchanged, all else through JSON."""
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    assert all(array.dtype == np.uint8 for array in arrays.values())
    plain = {name: value for name, value in state.items() if name not in arrays}
    result: dict[str, Any] = json.loads(json.dumps(plain)) | arrays
    return result


@pytest.mark.parametrize("stop", [0, 1, 37, 150])
def test_a_restored_game_continues_bit_for_bit(stop: int) -> None:
    """Images, rewards, ends, RAM and the no-ops of later episodes, with life losses on."""
    config = Config("Breakout", life_loss_ends=True)
    played = actions(config, 300)

    def go_on(game: AtariGame, rest: list[int]) -> list[tuple[bytes, float, bool, bytes]]:
        image, info = game.observe()
        log = [(image.tobytes(), 0.0, False, info["ram"].tobytes())]
        for action in rest:
            image, reward, terminated, _, info = game.step(action)
            log.append((image.tobytes(), reward, terminated, info["ram"].tobytes()))
            if terminated:
                image, info = game.reset()
                log.append((image.tobytes(), 0.0, False, info["ram"].tobytes()))
        return log

    game = AtariGame(config, 1)
    game.reset()
    go_on(game, played[:stop])
    state = through_json(game.get_state())
    restored = AtariGame(config, 99)
    restored.set_state(state)
    assert go_on(game, played[stop:]) == go_on(restored, played[stop:])


def test_a_restored_game_continues_in_another_process(tmp_path: Path) -> None:
    game = AtariGame(Config("Frostbite"), 2)
    game.reset()
    played = actions(Config("Frostbite"), 80)
    for action in played[:40]:
        game.step(action)
    state = game.get_state()
    arrays = {name: state.pop(name) for name in ("emulator", "screens")}
    np.savez(tmp_path / "state.npz", **arrays)
    (tmp_path / "state.json").write_text(json.dumps(state))
    program = (
        "import json, sys, hashlib, numpy as np\n"
        "from pathlib import Path\n"
        "from datasets.envs.atari import AtariGame, Config\n"
        "folder = Path(sys.argv[1])\n"
        "game = AtariGame(Config('Frostbite'), 0)\n"
        "state = json.loads((folder / 'state.json').read_text())\n"
        "game.set_state(state | dict(np.load(folder / 'state.npz', allow_pickle=False)))\n"
        "images = [game.step(int(a))[0].tobytes() for a in sys.argv[2].split(',')]\n"
        "print(hashlib.sha256(b''.join(images)).hexdigest())\n"
    )
    images = [game.step(action)[0].tobytes() for action in played[40:]]
    arguments = [str(tmp_path), ",".join(map(str, played[40:]))]
    there = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == hashlib.sha256(b"".join(images)).hexdigest()
    assert there.stderr == ""


def test_wrong_names_are_refused_with_suggestions() -> None:
    envs.check("atari/Frostbite")
    assert envs.image_shape("atari/Frostbite") == (3, 96, 96)
    assert len(envs.games()) > 100 and "MsPacman" in envs.games()
    for word, says in (
        ("atari/Frostbit", "did you mean Frostbite?"),
        ("atari/ms_pacman", "MsPacman"),
        ("atari/Qwxyz", "no such game"),
        ("atary/Frostbite", "the suites are: atari"),
        ("Frostbite", "did you mean atari/Frostbite?"),
        ("FreewayNoFrameskip-v4", "did you mean atari/Freeway?"),
        ("ALE/Gravitar-v5", "the suites are: .* did you mean atari/Gravitar?"),
        ("ALE/MsPacman-ram-v5", "did you mean atari/MsPacman?"),
        ("atari/Frostbite-v5", "did you mean Frostbite?"),
        ("reach-v3", "did you mean metaworld/reach?"),
        ("CartPole-v1", "did you mean gym/CartPole-v1?"),
        ("../atari/Frostbite", "the suites are: atari"),
    ):
        with pytest.raises(FoveaError, match=says):
            envs.check(word)


@pytest.mark.parametrize(
    "wrong",
    [{"game": "Combat"}, {"num_envs": 0}, {"noop_max": -1}, {"horizon": 0}, {"screen": "gray"}],
)
def test_impossible_configs_are_refused(wrong: dict[str, Any]) -> None:
    """The message begins with the field. Combat is part of ale-py, but loading it ends the
    process.
    """
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: "):
        Config(**({"game": "Pong"} | wrong))


@pytest.mark.slow
def test_every_game_loads_and_has_an_image() -> None:
    for name in games():
        game = AtariGame(Config(name))
        game.reset()
        image, *_, info = game.step(0)
        assert image.shape == (96, 96, 3) and info["ram"].shape == (128,), name
