"""Annotations from gaze: the samples of each frame, and their density."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.annotation import gaze
from datasets.annotation.maps import CANVAS, mean_map
from datasets.errors import FoveaError
from datasets.frame import Frame
from datasets.shards import FrameSet, read_frames, write_shard
from pretrain.metrics.fixations import SIZE, density, fixation_map


@pytest.fixture
def frames(tmp_path: Path) -> FrameSet:
    """Ten frames, of which three have no gaze."""
    rng = np.random.default_rng(0)
    rows = []
    for step in range(10):
        pixels = np.zeros((4, 3), np.uint16)
        for row in range(step % 4 if step % 3 else 0):
            pixels[row] = rng.integers(160), rng.integers(210), rng.integers(1, 5)
        rows.append(
            Frame(np.zeros((84, 84, 1), np.uint8), 0, 0.0, False, False, 0, step, {"gaze": pixels})
        )
    write_shard(tmp_path / "000-00000.tar", rows, stream=0, start=0)
    return read_frames(tmp_path)


def test_samples_are_in_the_middle_of_their_pixels(frames: FrameSet) -> None:
    """As often as they were counted; and on the grid they are in those pixels again."""
    for index in range(10):
        points = gaze.points(frames, index)
        counts = np.zeros(SIZE, np.int64)
        for x, y, times in frames.info["gaze"][index].tolist():
            counts[y, x] += times
        again = fixation_map(points * SIZE[::-1] / CANVAS, *SIZE)
        np.testing.assert_array_equal(again, counts)


def test_the_map_is_the_density_of_the_samples(frames: FrameSet) -> None:
    """As a Gaussian blur of 5 pixels gives it, up to rounding to bytes and the blur's end."""
    points = (np.array([[80, 90], [80, 90], [91, 130]]) + 0.5) * CANVAS / gaze.SCREEN
    heat = mean_map([points], *SIZE, gaze.SPREAD)
    blurred = density(fixation_map(points * SIZE[::-1] / CANVAS, *SIZE))
    np.testing.assert_allclose(heat / 255, blurred / blurred.max(), atol=0.003)


def test_frames_without_gaze_are_left_out(frames: FrameSet) -> None:
    some = [i for i in range(10) if frames.info["gaze"][i, 0, 2]]
    count = len(some)
    annotations = gaze.annotate(gaze.Config(), "atari/Pong", frames, count)["gaze"]
    assert sorted(annotations) == some and all(len(points) for points in annotations.values())
    with pytest.raises(FoveaError, match=f"{count} frames of 10 have gaze, count is {count + 1}; "):
        gaze.annotate(gaze.Config(), "atari/Pong", frames, count + 1)
    frames.info["gaze"] = np.zeros_like(frames.info["gaze"])
    with pytest.raises(FoveaError, match="no frames of 10 have gaze, count is 1"):
        gaze.annotate(gaze.Config(), "atari/Pong", frames, 1)


def test_other_frames_have_no_gaze(frames: FrameSet) -> None:
    del frames.info["gaze"]
    with pytest.raises(FoveaError, match="annotator gaze: the frames of atari/Pong have no gaze;"):
        gaze.annotate(gaze.Config(), "atari/Pong", frames, 1)
