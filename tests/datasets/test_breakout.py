"""BreakoutInfinite: a wall that comes back, and rewards that never show how."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets import envs
from datasets.envs.atari import AtariGame, Config
from datasets.errors import FoveaError

BRICKS = 36  # bytes of RAM from 0 on
WALL = 200  # bits of them at least, of 240, where a ball has hit a few
BALL_X, BALL_Y, PADDLE, LIVES = 99, 101, 72, 57
NOOP, FIRE, RIGHT, LEFT = range(4)


def score(ram: NDArray[np.uint8]) -> int:
    """The number on the screen: three decimal digits, in 12 bits."""
    return 100 * int(ram[76] & 15) + 10 * int(ram[77] >> 4) + int(ram[77] & 15)


def bricks(ram: NDArray[np.uint8]) -> int:
    return int(np.unpackbits(ram[:BRICKS]).sum())


def begun(config: Config) -> AtariGame:
    """A game whose first ball is under way: the cartridge builds the wall before it."""
    game = AtariGame(config, 0)
    game.reset()
    for _ in range(20):
        game.step(FIRE)
    assert bricks(game.observe()[1]["ram"]) > WALL
    return game


def chosen(ram: NDArray[np.uint8]) -> int:
    """Follow the ball with the paddle."""
    ball, paddle = int(ram[BALL_X]), int(ram[PADDLE])
    if not ram[BALL_Y]:
        return FIRE
    return RIGHT if ball > paddle + 8 else LEFT if ball < paddle + 4 else NOOP


def clear(game: AtariGame, points: int) -> None:
    """Take all bricks away, show these points, and give back the lives."""
    for index in range(BRICKS):
        game._ale.setRAM(index, 0)
    game._ale.setRAM(76, points // 100)
    game._ale.setRAM(77, points // 10 % 10 << 4 | points % 10)
    game._ale.setRAM(LIVES, 5)


def until_a_wall(game: AtariGame, steps: int = 400) -> bool:
    """Play on until there is a wall."""
    for _ in range(steps):
        ram = game.step(chosen(game.observe()[1]["ram"]))[4]["ram"]
        game._ale.setRAM(LIVES, 5)
        if bricks(ram) > WALL:
            return True
    return False


@pytest.mark.parametrize("screen", ["rgb96", "gray84"])
def test_a_wall_that_is_cleared_thrice_comes_back_thrice(screen: Any) -> None:
    """And the return is the points, as if the score had no limit."""
    game = begun(Config("Breakout", screen=screen, infinite="true"))
    assert game.observe()[1]["ram"][76] & 0xF0 == 0
    for rounds in range(1, 4):
        clear(game, 864)
        assert until_a_wall(game)
        ram = game.observe()[1]["ram"]
        assert 432 <= score(ram) < 500
        assert game._game_return == score(ram) + 432 * rounds
        for _ in range(60):
            *_, info = game.step(chosen(game.observe()[1]["ram"]))
            game._ale.setRAM(LIVES, 5)
        assert game._game_return == score(info["ram"]) + 432 * rounds


def test_the_cartridge_brings_the_wall_back_at_432_alone() -> None:
    for points, back in ((432, True), (864, False), (431, False)):
        game = begun(Config("Breakout"))
        clear(game, points)
        assert until_a_wall(game) is back, points
        assert game._game_return == score(game.observe()[1]["ram"])


def test_no_step_shows_the_emulators_negative_reward() -> None:
    game = AtariGame(Config("Breakout", infinite="true"), 0)
    game.reset()
    clear(game, 864)
    assert [game.step(NOOP)[1] for _ in range(4)] == [864, 0, 0, 0]


def test_a_state_between_two_frames_has_what_the_next_reward_lacks() -> None:
    config = Config("Breakout", infinite="true")
    game, other = AtariGame(config, 0), AtariGame(config, 1)
    game.reset()
    clear(game, 864)
    assert game._act(game._actions[NOOP]) == 864
    clear(game, 864)
    game._infinite_frame(game._actions[NOOP])  # 432 is shown, and no frame was played since
    assert score(game._ale.getRAM()) == 432
    other.set_state(game.get_state())
    for _ in range(5):
        image, reward, *_ = game.step(NOOP)
        image2, reward2, *_ = other.step(NOOP)
        assert reward == reward2 == 0
        np.testing.assert_array_equal(image, image2)
    clear(game, 864)
    game._infinite_frame(game._actions[NOOP])
    game._new_game()
    assert game.step(NOOP)[1] == 0  # a new game is owed nothing


def test_until_864_it_is_breakout() -> None:
    games = [AtariGame(Config("Breakout", infinite=i), 3) for i in ("true", "false")]
    for game in games:
        game.reset()
    for _ in range(300):
        (image, *rest, info), (image2, *rest2, info2) = (
            game.step(chosen(game.observe()[1]["ram"])) for game in games
        )
        assert rest == rest2
        np.testing.assert_array_equal(image, image2)
        np.testing.assert_array_equal(info["ram"], info2["ram"])


def test_other_games_and_values_are_refused() -> None:
    envs.check("atari/Breakout?screen=gray84&infinite=true")
    with pytest.raises(FoveaError, match="infinite: true, must be false in Pong"):
        envs.check("atari/Pong?infinite=true")
    with pytest.raises(FoveaError, match="infinite: 'yes', must be false or true"):
        envs.check("atari/Breakout?infinite=yes")
    with pytest.raises(FoveaError, match="in Pong"):
        envs.members("atari/{Breakout,Pong}?infinite=true")


def test_it_is_no_option_of_rendering() -> None:
    """A source of saliency for Breakout labels frames of both."""
    rendering = envs.rendering("atari/Breakout?screen=gray84&infinite=true")
    assert rendering == envs.rendering("atari/Breakout?screen=gray84")
