"""Simulated clicks against rendered pixels, and their maps against the formula."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.annotation.choice import keys, order
from datasets.annotation.maps import CANVAS, Clicks, heat_map, mean_map
from datasets.annotation.ram import GAMES, boxes
from datasets.annotation.simulated import Config, annotate, second_annotator
from datasets.envs.atari import AtariGame
from datasets.envs.atari import Config as Game
from datasets.errors import FoveaError
from datasets.shards import FrameSet


def test_heat_map_is_the_sum_of_gaussians() -> None:
    """Pixel by pixel, on an image that is not square."""
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
    heat = heat_map(clicks, height, width)
    assert heat.dtype == np.uint8 and heat.max() == 255
    np.testing.assert_array_equal(heat, np.rint(expected))
    assert heat_map(np.empty((0, 2)), 4, 4).max() == 0


def test_several_annotators_maps_are_averaged() -> None:
    """Each has the same weight, whatever the number of clicks."""
    often = np.repeat([[100.0, 100.0], [300.0, 300.0]], [40, 10], axis=0)
    once = np.full((1, 2), 300.0)
    mean = mean_map([often, once], 40, 40).astype(int)
    both = heat_map(often, 40, 40).astype(float) + heat_map(once, 40, 40)
    np.testing.assert_allclose(mean, 255 * both / both.max(), atol=1)
    one = heat_map(often, 40, 40)
    np.testing.assert_array_equal(mean_map([often, often, often], 40, 40), one)


def test_clicks_of_one_of_three_annotators_count_as_salient() -> None:
    """Their maps don't overlap, so their plain mean is below half of 255 everywhere."""
    places = (80.0, 200.0, 320.0)
    mean = mean_map([np.full((5, 2), place) for place in places], 40, 40)
    assert mean[8, 8] == mean[20, 20] == mean[32, 32] == mean.max() == 255
    assert mean_map([np.empty((0, 2))] * 3, 4, 4).max() == 0


def played(
    game: str, steps: int, pinned: Mapping[int, int] | None = None
) -> Iterator[tuple[NDArray[np.uint8], list[tuple[float, float]]]]:
    """The maximum of two screens, and the positions of objects in RAM; RAM cells may be pinned."""
    env = AtariGame(Game(game), (0, 3))
    rng = np.random.default_rng(1)
    _, info = env.reset()
    for step in range(steps):
        if step > 40:
            yield np.maximum(*env._screens), [box.centre for box in boxes(game, info["ram"])]
        for cell, value in (pinned or {}).items():
            env._ale.setRAM(cell, value)
        _, _, terminated, _, info = env.step(rng.integers(len(env._actions)))
        if terminated:
            _, info = env.reset()


def is_at(image: NDArray[np.uint8], x: float, y: float, colours: list[tuple[int, ...]]) -> bool:
    """Whether one of the colours is within four pixels of the point."""
    near = image[max(0, int(y) - 4) : int(y) + 5, max(0, int(x) - 4) : int(x) + 5]
    return any((near == colour).all(axis=-1).any() for colour in colours)


@pytest.mark.parametrize(
    ("game", "colours", "first"),
    [("MsPacman", [(210, 164, 74)], 0), ("Frostbite", [(214, 214, 214), (84, 138, 210)], -1)],
)
def test_objects_are_at_their_pixels(game: str, colours: list[tuple[int, ...]], first: int) -> None:
    """Ms. Pacman herself; in Frostbite the last floe of the list."""
    hits = [is_at(image, *points[first], colours) for image, points in played(game, 250)]
    assert np.mean(hits) > 0.9


def test_berzerk_robots_are_visible() -> None:
    """Pixels are lit where RAM has a player or robot, in nearly every frame."""
    hits = []
    for image, points in played("Berzerk", 250):
        for x, y in points:
            hits.append(image[int(y) - 4 : int(y) + 5, int(x) - 3 : int(x) + 4].max() > 0)
    assert len(hits) > 200 and np.mean(hits) > 0.8


# Red and green: blue is the water's where only one of the two merged frames has the sprite.
BLUE, GREEN, GREY, YELLOW = (66, 72), (92, 186), (170, 170), (187, 187)
SPRITES: dict[str, tuple[tuple[int, int], range, range, range]] = {  # colour, tops, widths, heights
    "submarine": (YELLOW, range(50, 160), range(15, 18), range(9, 13)),
    "its shot": (YELLOW, range(50, 160), range(8, 14), range(1, 4)),
    "fish": (GREEN, range(60, 160), range(8, 10), range(7, 9)),
    "diver": (BLUE, range(60, 160), range(8, 10), range(12, 15)),
    "patrol": (GREY, range(40, 50), range(8, 10), range(5, 12)),
    "boat": (GREY, range(60, 160), range(8, 10), range(10, 12)),
    "torpedo": (BLUE, range(60, 160), range(6, 9), range(4, 5)),
}


def whole_sprites(image: NDArray[np.uint8]) -> Iterator[tuple[str, float, float]]:
    """Name and centre (x, y) of Seaquest's unoccluded sprites, from their pixels alone."""
    for name, ((red, green), tops, widths, heights) in SPRITES.items():
        lit = ((image[..., 0] == red) & (image[..., 1] == green)).astype(np.uint8)
        near = cv2.dilate(lit, np.ones((5, 5), np.uint8))  # a diver's bubbles are his
        for left, top, width, height, _ in cv2.connectedComponentsWithStats(near)[2][1:]:
            right_size = width - 4 in widths and height - 4 in heights
            if right_size and top + 2 in tops and 8 < left < 160 - width:
                yield name, left + width / 2, top + height / 2


@pytest.mark.parametrize(
    ("pinned", "visible_kinds"),
    [
        ({}, {"submarine", "its shot", "fish", "diver"}),
        # Level, patrol and oxygen: random play sees no formations. Their fish are of other colours.
        ({61: 27, 60: 3, 102: 64}, set(SPRITES) - {"fish"}),
    ],
)
def test_seaquest_sprites_are_all_listed_at_their_centres(
    pinned: dict[int, int], visible_kinds: set[str]
) -> None:
    """Every visible sprite is listed within 2.6 pixels, as two frames smear a shot that far, and
    every listed one is visible.
    """
    distances, hits = defaultdict(list), []
    for image, points in played("Seaquest", 600, pinned):
        for name, x, y in whole_sprites(image):
            nearest = min((math.dist((x, y), point) for point in points), default=math.inf)
            distances[name].append(nearest)
        marked = (image != np.median(image[:, 8::8], axis=1, keepdims=True)).any(axis=-1)
        for x, y in points:
            hits.append(marked[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3].any())
    assert {name for name, pixels in distances.items() if len(pixels) >= 10} >= visible_kinds
    far = {name: np.mean(np.array(pixels) > 2.6) for name, pixels in distances.items()}
    assert max(far.values()) < 0.03, far  # a shot and what it hits, in the last of the two frames
    assert np.mean(hits) > 0.99


def some_frames(count: int, **info: NDArray[np.generic]) -> FrameSet:
    """Frames of two streams with black images."""
    zeros, flags = np.zeros(count, np.int32), np.zeros(count, bool)
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 16, 3), np.uint8)
    return FrameSet(
        images=images,
        action=zeros.astype(np.int64),
        reward=zeros.astype(np.float32),
        terminated=flags,
        truncated=flags,
        episode=zeros,
        step=np.arange(count, dtype=np.int32),
        stream=(np.arange(count) >= count // 3).astype(np.int32),
        info=info,
    )


def ms_pacman(count: int) -> FrameSet:
    ram = np.zeros((count, 128), np.uint8)
    ram[:, [10, 16]] = 93, 55  # she is at (84.5, 61)
    return some_frames(count, ram=ram)


def meta_world(count: int) -> FrameSet:
    """Tip, object and goal far from each other, in an image of 16x8."""
    points = np.array([[4, 2], [12, 2], [8, 6]], np.float32)
    return some_frames(count, points=np.repeat(points[None], count, axis=0))


def simulate(env: str, frames: FrameSet, count: int, **words: int) -> dict[int, Clicks]:
    (annotator, clicks), *others = annotate(Config(**words), env, frames, count).items()
    assert annotator == "simulated" and not others
    return clicks


def test_frames_are_sampled_and_always_the_same() -> None:
    frames = some_frames(300)
    positions = order(frames, 0)
    assert sorted(positions) == list(range(300)) and positions != order(frames, 1)
    assert positions[:4] == [195, 83, 135, 112]  # click files hang on it: it must never change
    assert abs(np.mean(positions[:100]) - 150) < 25
    assert keys(frames)[98:102] == ["000-00000098", "000-00000099", "001-00000000", "001-00000001"]


def test_clicks_are_repeatable_and_spread_as_configured() -> None:
    """Their number is about N(25, 5.8), their distance from the object about 10 canvas pixels."""
    frames = ms_pacman(400)
    clicks = simulate("atari/MsPacman", frames, 400, seed=1)
    fewer = simulate("atari/MsPacman", frames, 30, seed=1)
    assert list(fewer) == list(clicks)[:30] == order(frames, 1)[:30] and len(clicks) == 400
    assert all(np.array_equal(clicks[i], fewer[i]) for i in fewer)
    counts = np.array([len(each) for each in clicks.values()])
    assert abs(counts.mean() - 25) < 1 and abs(counts.std() - 5.8) < 0.7
    places = np.concatenate(list(clicks.values()))
    np.testing.assert_allclose(places.mean(0), [84.5 * 2.5, 61 * 400 / 210], atol=0.5)
    np.testing.assert_allclose(places.std(0), [10, 10], atol=0.5)
    other = simulate("atari/MsPacman", frames, 3, seed=2)
    assert list(other) != list(clicks)[:3]


def test_another_annotator_clicks_on_the_same_frames_elsewhere() -> None:
    frames = ms_pacman(40)
    indices = [3, 17, 5]
    first = simulate("atari/MsPacman", frames, 40)
    second = second_annotator(Config(), "atari/MsPacman", frames, indices)
    for index, clicks in zip(indices, second, strict=True):
        assert not np.isin(clicks, first[index]).any()
        np.testing.assert_allclose(clicks.mean(0), first[index].mean(0), atol=12)


def test_clicks_on_meta_world_are_split_among_tip_object_and_goal() -> None:
    """45, 40 and 15 %, if all are in the image: pixels of 16x8 on a canvas of 400x400."""
    clicks = np.concatenate(list(simulate("metaworld/reach", meta_world(400), 400).values()))
    targets = np.array([[100, 100], [300, 100], [200, 300]])
    intended = np.linalg.norm(clicks[:, None] - targets, axis=-1).argmin(-1)
    np.testing.assert_allclose(np.bincount(intended) / len(clicks), [0.45, 0.4, 0.15], atol=0.015)
    strayed = clicks - targets[intended]
    np.testing.assert_allclose(strayed.mean(0), 0, atol=0.5)
    np.testing.assert_allclose(strayed.std(0), 10, atol=0.5)


def test_points_outside_of_the_image_are_never_clicked_on() -> None:
    """Their share goes to the other points; a frame without any point in it is not annotated."""
    frames = meta_world(60)
    points = frames.info["points"]
    points[:, 0] = -0.5, 4  # just left of the picture
    points[:10, 1:] = 3, 8.5  # just below it
    points[10:20, 1:] = np.nan  # behind the camera
    clicks = simulate("metaworld/reach", frames, 40)
    assert sorted(clicks) == list(range(20, 60))
    places = np.concatenate(list(clicks.values()))
    near = np.linalg.norm(places - [300, 100], axis=-1) < 60
    assert near.mean() == pytest.approx(0.4 / 0.55, abs=0.05)
    assert (np.linalg.norm(places[~near] - [200, 300], axis=-1) < 60).all()


def test_frames_without_objects_are_left_out_and_unknown_games_refused() -> None:
    frames = ms_pacman(10)
    frames.info["ram"][:5, 80] = 44  # Berzerk's room change
    frames.info["ram"][:, 19] = 50
    assert sorted(simulate("atari/Berzerk", frames, 5)) == [5, 6, 7, 8, 9]
    with pytest.raises(FoveaError, match=r"5 frames of 10 of .* count is 6"):
        simulate("atari/Berzerk", frames, 6)
    frames.info["ram"][:, 80] = 44
    with pytest.raises(FoveaError, match="no frames of 10 of atari/Berzerk show an object"):
        annotate(Config(), "atari/Berzerk", frames, 30)
    for env in ("atari/Pong", "atari/BattleZone", "metaworld/reach"):
        with pytest.raises(FoveaError, match=f"metaworld/.*atari/Seaquest, not of {env}"):
            annotate(Config(), env, frames, 3)
    with pytest.raises(ValueError, match=r"^mean: 0"):
        Config(mean=0)
    assert set(GAMES) == {"MsPacman", "Frostbite", "Berzerk", "Seaquest"}
