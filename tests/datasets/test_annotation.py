"""Simulated clicks against drawn pixels, and their maps against the formula."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.annotation.maps import CANVAS, heat_map
from datasets.annotation.simulated import GAMES, Config, Points, annotate, objects
from datasets.envs.atari import AtariGame
from datasets.envs.atari import Config as Game
from datasets.errors import FoveaError
from datasets.shards import FrameSet


def test_heat_map_is_the_sum_of_gaussians() -> None:
    """Pixel by pixel, on a picture that is not square."""
    clicks = np.random.default_rng(0).uniform(0, CANVAS, (5, 2))
    height, width = 12, 20
    expected = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            x, y = (column + 0.5) * 400 / width, (row + 0.5) * 400 / height
            for click in clicks:
                square = (x - click[0]) ** 2 + (y - click[1]) ** 2
                expected[row, column] += math.exp(-square / (2 * 10.0**2))
    expected *= 255 / expected.max()
    found = heat_map(clicks, height, width)
    assert found.dtype == np.uint8 and found.max() == 255
    np.testing.assert_array_equal(found, np.rint(expected))
    assert heat_map(np.empty((0, 2)), 4, 4).max() == 0


def played(game: str, steps: int) -> Iterator[tuple[NDArray[np.uint8], Points]]:
    """The screen at its own size, and where the objects are said to be."""
    env = AtariGame(Game(game, width=160, height=210), (0, 3))
    rng = np.random.default_rng(1)
    image, info = env.reset()
    for step in range(steps):
        if step > 40:
            yield image, objects(game, info["ram"])
        image, _, terminated, _, info = env.step(rng.integers(len(env._actions)))
        if terminated:
            image, info = env.reset()


def drawn(image: NDArray[np.uint8], x: float, y: float, colours: list[tuple[int, ...]]) -> bool:
    """Is one of the colours within four pixels of the point?"""
    near = image[max(0, int(y) - 4) : int(y) + 5, max(0, int(x) - 4) : int(x) + 5]
    return any((near == colour).all(axis=-1).any() for colour in colours)


@pytest.mark.parametrize(
    ("game", "colours", "first"),
    [("MsPacman", [(210, 164, 74)], 0), ("Frostbite", [(214, 214, 214), (84, 138, 210)], -1)],
)
def test_objects_are_where_they_are_drawn(
    game: str, colours: list[tuple[int, ...]], first: int
) -> None:
    """Ms. Pacman herself; in Frostbite the floe listed last."""
    hits = [drawn(image, *points[first], colours) for image, points in played(game, 250)]
    assert np.mean(hits) > 0.9


def test_berzerk_robots_are_drawn() -> None:
    """Something is lit where RAM has a player or robot, in nearly every frame."""
    hits = []
    for image, points in played("Berzerk", 250):
        for x, y in points:
            hits.append(image[int(y) - 4 : int(y) + 5, int(x) - 3 : int(x) + 4].max() > 0)
    assert len(hits) > 200 and np.mean(hits) > 0.8


def some_frames(count: int) -> FrameSet:
    """Frames of Ms. Pacman's RAM, without pictures worth the name."""
    ram = np.zeros((count, 128), np.uint8)
    ram[:, [10, 16]] = 93, 55  # she is at (84.5, 61)
    zeros = np.zeros(count, np.int32)
    flags = np.zeros(count, bool)
    return FrameSet(
        images=np.zeros((count, 96, 96, 3), np.uint8),
        action=zeros.astype(np.int64),
        reward=zeros.astype(np.float32),
        terminated=flags,
        truncated=flags,
        episode=zeros,
        step=np.arange(count, dtype=np.int32),
        stream=zeros,
        info={"ram": ram},
    )


def test_clicks_are_repeatable_and_spread_as_configured() -> None:
    """Their number about N(25, 5.8), their places about the object with 10 canvas pixels."""
    frames = some_frames(400)
    clicks = annotate(Config(seed=1), "atari/MsPacman", frames, 400)
    again = annotate(Config(seed=1), "atari/MsPacman", frames, 400)
    assert all(np.array_equal(clicks[i], again[i]) for i in clicks) and len(clicks) == 400
    counts = np.array([len(each) for each in clicks.values()])
    assert abs(counts.mean() - 25) < 1 and abs(counts.std() - 5.8) < 0.7
    places = np.concatenate(list(clicks.values()))
    np.testing.assert_allclose(places.mean(0), [84.5 * 2.5, 61 * 400 / 210], atol=0.5)
    np.testing.assert_allclose(places.std(0), [10, 10], atol=0.5)
    other = annotate(Config(seed=2), "atari/MsPacman", frames, 3)
    assert list(other) == [0, 200, 399] and not np.array_equal(other[0], clicks[0])


def test_frames_without_objects_are_left_out_and_unknown_games_refused() -> None:
    """Nobody clicks on nothing."""
    frames = some_frames(10)
    frames.info["ram"][:5, 80] = 44  # Berzerk's room change
    frames.info["ram"][:, 19] = 50
    assert list(annotate(Config(), "atari/Berzerk", frames, 30)) == [5, 6, 7, 8, 9]
    with pytest.raises(FoveaError, match="atari/Berzerk, not of atari/Pong"):
        annotate(Config(), "atari/Pong", frames, 3)
    with pytest.raises(ValueError, match=r"^mean: 0"):
        Config(mean=0)
    assert set(GAMES) == {"MsPacman", "Frostbite", "Berzerk"}
