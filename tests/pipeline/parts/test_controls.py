"""Controls: the same for every source of the same annotations, and blind as they should be."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from datasets.annotation import simulated
from datasets.annotation.maps import heat_map
from datasets.shards import FrameSet
from pipeline.parts.controls import control_maps, motion, others, second_annotator
from pipeline.parts.labelled import Labelled
from pipeline.parts.scores import scores_of_maps


def recorded(steps: list[int], episodes: list[int], streams: list[int]) -> FrameSet:
    """Frames (n, 8, 8, 1): each has the one pixel bright that is numbered as the frame."""
    count = len(steps)
    images = np.zeros((count, 8, 8, 1), np.uint8)
    images.reshape(count, -1)[np.arange(count), np.arange(count)] = 200
    empty = np.zeros(count, np.bool_)
    return FrameSet(
        images=images,
        action=np.zeros(count, np.int64),
        reward=np.zeros(count, np.float32),
        terminated=empty,
        truncated=empty,
        episode=np.array(episodes, np.int32),
        step=np.array(steps, np.int32),
        stream=np.array(streams, np.int32),
        info={},
    )


def test_motion_is_what_differs_from_the_frame_before() -> None:
    """Of the same episode, and the step before; where there is none nothing moves."""
    frames = recorded([0, 1, 2, 0, 1, 5, 6], [0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1])
    maps = motion(Labelled(frames, np.arange(7), np.zeros((7, 8, 8), np.uint8)))
    assert maps is not None and maps.dtype == np.float32
    bright = [np.flatnonzero(one).tolist() for one in maps]
    assert bright == [[], [0, 1], [1, 2], [], [], [], [5, 6]]
    assert maps.max() == 1
    alone = Labelled(frames, np.array([0, 3, 5]), np.zeros((3, 8, 8), np.uint8))
    assert motion(alone) is None and "motion" not in control_maps(alone)


def test_controls_know_no_frame_and_are_the_same_every_time() -> None:
    frames = recorded([0, 1, 2], [0, 0, 0], [0, 0, 0])
    labelled = Labelled(frames, np.arange(3), np.zeros((3, 8, 8), np.uint8))
    maps = control_maps(labelled)
    assert list(maps) == ["zero", "centre", "uniform", "random", "motion"]
    other = control_maps(replace(labelled, frames=replace(frames, images=frames.images + 1)))
    for name in ("zero", "centre", "uniform", "random"):
        assert np.array_equal(maps[name], other[name]) and maps[name].shape == (3, 8, 8)
        assert maps[name].dtype == np.float32 and 0 <= maps[name].min() <= maps[name].max() <= 1
    assert np.ptp(maps["uniform"]) == 0 and not np.array_equal(maps["random"][0], maps["random"][1])


@pytest.mark.parametrize("count", [2, 3, 50])
def test_no_frame_is_shuffled_to_itself(count: int) -> None:
    assert sorted(others(count)) == list(range(count))
    assert (others(count) != np.arange(count)).all()
    assert others(1).tolist() == [0]


def test_a_second_annotator_clicks_elsewhere_on_the_same_objects() -> None:
    """Its maps are near the first one's, but not the same; people have no second annotator."""
    points = np.random.default_rng(0).uniform(2, 14, (40, 3, 2))
    frames = recorded([*range(40)], [0] * 40, [0] * 40)
    frames = replace(frames, images=np.zeros((40, 16, 16, 3), np.uint8), info={"points": points})
    config = simulated.Config(seed=3)
    clicks = simulated.annotate(config, "metaworld/reach", frames, 40)["simulated"]
    maps = np.stack([heat_map(clicks[index], 16, 16) for index in range(40)])
    labelled = Labelled(frames, np.arange(40), maps)
    entry = {"annotator": "simulated", "count": 40, **asdict(config)}
    again = second_annotator(entry, "metaworld/reach", labelled)
    assert again is not None and again.shape == maps.shape
    near, nothing = scores_of_maps(again, maps), scores_of_maps(np.zeros_like(again), maps)
    assert 0.5 < near["f_max"] < 0.99 and 0 < near["mae"] < 0.7 * nothing["mae"]
    assert second_annotator({"annotator": "human", "seed": 0}, "metaworld/reach", labelled) is None
