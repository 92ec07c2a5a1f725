"""Each screen against a plain loop over the emulator: pixels, buttons, ends, sizes, names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ale_py
import ale_py.roms
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from datasets import envs
from datasets.envs.atari import AtariGame, Config, games
from datasets.errors import FoveaError
from datasets.shards import read_frames
from datasets.sources import random
from datasets.streams import equal_shares

Image = NDArray[np.uint8]
Step = tuple[Image, float, bool]  # image, reward, terminated


def emulator(game: str) -> ale_py.ALEInterface:
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(Path(ale_py.roms.__file__).parent / f"{games()[game]}.bin")
    return ale


class Baselines:
    """OpenAI Baselines' make_atari and wrap_deepmind, one method a wrapper, without any shared
    code; `frame` is the image of the last step.
    """

    def __init__(self, game: str, noops: Iterator[int]) -> None:
        self.ale, self.noops = emulator(game), noops
        self.codes = [action.value for action in self.ale.getMinimalActionSet()]
        self.lives, self.whole_game_over = 0, True
        self.frame: Image = np.zeros(0, np.uint8)

    def warp(self, screens: list[Image]) -> None:
        gray = cv2.cvtColor(np.max(np.stack(screens), axis=0), cv2.COLOR_RGB2GRAY)
        small = cv2.resize(gray, (84, 84), interpolation=cv2.INTER_AREA)
        self.frame = np.asarray(small, np.uint8)[:, :, None]

    def noop_reset(self) -> None:
        self.ale.reset_game()
        for _ in range(next(self.noops)):
            self.ale.act(0)
        self.warp([self.ale.getScreenRGB()])

    def max_and_skip(self, code: int) -> tuple[float, bool]:
        reward, screens = 0.0, []
        for _ in range(4):
            reward += self.ale.act(code)
            screens.append(self.ale.getScreenRGB())
        self.warp(screens[-2:])
        return reward, bool(self.ale.game_over())

    def episodic_step(self, action: int) -> tuple[float, bool]:
        reward, over = self.max_and_skip(self.codes[action])
        self.whole_game_over = over
        lives = self.ale.lives()
        over = over or 0 < lives < self.lives
        self.lives = lives
        return reward, over

    def episodic_reset(self) -> None:
        if self.whole_game_over or self.max_and_skip(self.codes[0])[1]:
            self.noop_reset()
        self.lives = self.ale.lives()

    def reset(self) -> None:
        self.episodic_reset()
        if 1 in self.codes:
            for action in (1, 2):
                if self.episodic_step(action)[1]:
                    self.episodic_reset()


def plain(game: str, seed: int, played: list[int]) -> Iterator[Step]:
    generator = np.random.default_rng(seed)
    wrapped = Baselines(game, iter(lambda: int(generator.integers(1, 31)), None))
    wrapped.reset()
    yield wrapped.frame, 0.0, False
    for action in played:
        reward, over = wrapped.episodic_step(action)
        yield wrapped.frame, reward, over
        if over:
            wrapped.reset()
            yield wrapped.frame, 0.0, False


def ours(config: Config, seed: int, played: list[int]) -> Iterator[Step]:
    game = AtariGame(config, seed)
    yield game.reset()[0], 0.0, False
    for action in played:
        image, reward, terminated, *_ = game.step(action)
        yield image, reward, terminated
        if terminated:
            yield game.reset()[0], 0.0, False


def actions(game: str, count: int) -> list[int]:
    number = len(emulator(game).getMinimalActionSet())
    return [int(action) for action in np.random.default_rng(7).integers(number, size=count)]


@pytest.mark.parametrize("game", ["Breakout", "MsPacman", "Seaquest", "Qbert", "JourneyEscape"])
def test_gray84_equals_baselines_wrappers(game: str) -> None:
    """With FIRE and without, with lives and without, of 210 rows and of 230."""
    played = actions(game, 700)
    config = Config(game, screen="gray84", life_loss_ends=True)
    ends = 0
    for mine, theirs in zip(ours(config, 3, played), plain(game, 3, played), strict=True):
        assert mine[0].shape == (84, 84, 1)
        np.testing.assert_array_equal(mine[0], theirs[0])
        assert mine[1:] == theirs[1:]
        ends += mine[2]
    assert ends >= 3 or game == "JourneyEscape"


@pytest.mark.parametrize("game", ["Breakout", "MsPacman"])
def test_a_gray84_game_is_the_same_with_and_without_ends_at_lives(game: str) -> None:
    """The whole game's return includes the buttons pressed after a lost life."""
    whole = AtariGame(Config(game, screen="gray84"), 5)
    cut = AtariGame(Config(game, screen="gray84", life_loss_ends=True), 5)
    whole.reset()
    cut.reset()
    ends = 0
    for action in actions(game, 700):
        image, _, over, _, info = whole.step(action)
        other, _, ended, _, info2 = cut.step(action)
        assert info["game_over"] == info2["game_over"] and ended >= over
        if over:
            assert info["game_return"] == info2["game_return"] > 0
            image, _ = whole.reset()
        if ended:
            ends += 1
            other, _ = cut.reset()
        np.testing.assert_array_equal(image, other)
    assert ends >= 3


@pytest.mark.parametrize(("game", "rows"), [("Breakout", 210), ("Carnival", 214), ("Pooyan", 220)])
def test_native_is_the_last_screen_without_pressed_buttons(game: str, rows: int) -> None:
    ale, config = emulator(game), Config(game, screen="native", noop_max=0)
    codes = [action.value for action in ale.getMinimalActionSet()]
    played, ours_played = actions(game, 60), AtariGame(config)
    ale.reset_game()
    np.testing.assert_array_equal(ours_played.reset()[0], ale.getScreenRGB())
    for action in played:
        total = sum(ale.act(codes[action]) for _ in range(4))
        image, reward, *_ = ours_played.step(action)
        assert reward == total
        np.testing.assert_array_equal(image, ale.getScreenRGB())
    assert image.shape == (rows, 160, 3)
    assert envs.image_shape(f"atari/{game}?screen=native") == (3, rows, 160)


@pytest.mark.parametrize("screen", ["rgb96", "gray84", "native"])
@pytest.mark.parametrize("game", ["Qbert", "Tetris", "Breakout"])
def test_a_state_is_restored_in_a_fresh_emulator(game: str, screen: Any) -> None:
    """ale-py 0.12.1 restores Qbert and Tetris wrongly in an emulator that has not run."""
    config = Config(game, screen=screen, life_loss_ends=True)
    played = actions(game, 160)
    running = AtariGame(config, 1)
    running.reset()
    for stop in (0, 30, 60):
        state = running.get_state()
        fresh = AtariGame(config, 9)
        fresh.set_state(state)
        for action in played[stop : stop + 40]:
            image, reward, terminated, _, info = running.step(action)
            again, reward2, terminated2, _, info2 = fresh.step(action)
            np.testing.assert_array_equal(info["ram"], info2["ram"])
            np.testing.assert_array_equal(image, again)
            assert (reward, terminated) == (reward2, terminated2)
            if terminated:
                running.reset()
                fresh.reset()


def test_a_screen_is_an_option_of_the_name() -> None:
    assert envs.image_shape("atari/Pong?screen=gray84") == (1, 84, 84)
    assert envs.rendering("atari/Pong") == {"suite": "atari", "screen": "rgb96"}
    with pytest.raises(FoveaError, match=r"screen: 'grey84', must be rgb96 or gray84 or native"):
        envs.check("atari/Pong?screen=grey84")


def test_several_games_in_one_name() -> None:
    word = "atari/{Asteroids,Assault,MsPacman}?screen=gray84"
    assert envs.members(word) == [
        f"atari/{game}?screen=gray84" for game in ("Asteroids", "Assault", "MsPacman")
    ]
    assert envs.members("atari/Pong") == ["atari/Pong"]
    assert envs.image_shape(word) == (1, 84, 84) and envs.frame_info(word) == ("lives", "ram")
    for wrong, says in (
        ("atari/{Asteroid,Pong}", "did you mean Asteroids"),
        ("atari/{Pong,Pong}", "each game once"),
        ("atari/{Pong", "each game once"),
        ("atari/{Pong,Carnival}?screen=native", r"one shape; .*210, 160.*214, 160"),
    ):
        with pytest.raises(FoveaError, match=says):
            envs.members(wrong)
    with pytest.raises(FoveaError, match="must be one game, not several"):
        envs.check(word)


def test_streams_are_split_evenly_among_games(tmp_path: Path) -> None:
    """Of eight streams three are of each of the first two games, and two of the last."""
    word = "atari/{Pong,MsPacman,Qbert}?screen=gray84"
    shares = equal_shares(word, random.uniform, seed=0, streams=8, count=100)
    assert [share.env.partition("?")[0] for share in shares[:3]] == [
        "atari/Pong", "atari/MsPacman", "atari/Qbert",
    ]  # fmt: skip
    by_game = [sum(share.count for share in shares[game::3]) for game in range(3)]
    assert by_game == [34, 33, 33]
    with pytest.raises(ValueError, match="streams: 2, must be at least 1 for each of 3 games"):
        equal_shares(word, random.uniform, seed=0, streams=2, count=100)
    for stream in random.streams(random.Config(streams=4), word, 26):
        stream.run(tmp_path, lambda _: None)
    frames = read_frames(tmp_path)
    assert frames.images.shape == (26, 84, 84, 1) and frames.info["ram"].shape == (26, 128)
    assert [int((frames.stream == index).sum()) for index in range(4)] == [5, 9, 8, 4]
