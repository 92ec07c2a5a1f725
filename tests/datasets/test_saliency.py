"""Saliency maps on disk, joined to their frames."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from datasets.errors import FoveaError
from datasets.files import sha256_file
from datasets.saliency import Indices, Maps, read_saliency, write_saliency_shard
from datasets.shards import FrameSet, read_frames, write_shard
from tests.datasets.test_shards import flip
from tests.datasets.test_shards import frames as noise


def two_streams(folder: Path, seed: int = 0) -> FrameSet:
    """300 frames of one stream and 20 of another."""
    folder.mkdir(exist_ok=True)
    for stream, count in enumerate((300, 20)):
        path = folder / f"{stream:03d}-00000.tar"
        write_shard(path, noise(count, seed + stream), stream=stream, start=0)
    return read_frames(folder)


def maps_of(indices: Indices) -> Maps:
    """Noise."""
    shape = (len(indices), 6, 6)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def write(folder: Path, frames: FrameSet, indices: Indices) -> Maps:
    """One shard a stream."""
    folder.mkdir(exist_ok=True)
    maps = maps_of(indices)
    for stream in np.unique(frames.stream[indices]):
        mine = frames.stream[indices] == stream
        path = folder / f"{stream:03d}-00000.tar"
        write_saliency_shard(path, frames, indices[mine], maps[mine])
    return maps


@pytest.mark.parametrize("every", [1, 7])
def test_maps_are_read_with_their_frames(tmp_path: Path, every: int) -> None:
    """Of all frames, or of some."""
    frames = two_streams(tmp_path / "frames")
    indices = np.arange(0, 320, every)
    maps = write(tmp_path / "maps", frames, indices)
    result, read = read_saliency(tmp_path / "maps", frames)
    np.testing.assert_array_equal(result, indices)
    np.testing.assert_array_equal(read, maps)
    before = [sha256_file(path) for path in sorted((tmp_path / "maps").glob("*.tar"))]
    write(tmp_path / "maps", frames, indices)
    assert before == [sha256_file(path) for path in sorted((tmp_path / "maps").glob("*.tar"))]


def test_maps_of_other_frames_are_refused(tmp_path: Path) -> None:
    """Same count, same keys, other pixels; and fewer frames than maps."""
    frames = two_streams(tmp_path / "frames")
    write(tmp_path / "maps", frames, np.arange(320))
    other = two_streams(tmp_path / "other", seed=9)
    with pytest.raises(FoveaError, match=r"000-00000\.tar: its maps are of other frames"):
        read_saliency(tmp_path / "maps", other)
    os.remove(tmp_path / "frames" / "001-00000.tar")
    with pytest.raises(FoveaError, match=r"001-00000\.tar: its maps are of other frames"):
        read_saliency(tmp_path / "maps", read_frames(tmp_path / "frames"))
    with pytest.raises(FoveaError, match="its columns are not saliency maps"):
        read_saliency(tmp_path / "frames", frames)


def test_repeated_maps_and_damage_are_refused(tmp_path: Path) -> None:
    """By the name of the folder or the shard."""
    frames = two_streams(tmp_path / "frames")
    folder = tmp_path / "maps"
    write(folder, frames, np.arange(10))
    write_saliency_shard(folder / "000-00001.tar", frames, np.arange(3), maps_of(np.arange(3)))
    with pytest.raises(FoveaError, match="maps are out of order, or two are of one frame"):
        read_saliency(folder, frames)
    path = folder / "000-00001.tar"
    path.write_bytes(flip(path.read_bytes(), 8 * 700))
    with pytest.raises(FoveaError, match=r"000-00001\.tar: damaged"):
        read_saliency(folder, frames)


def test_maps_that_do_not_fit_are_not_written(tmp_path: Path) -> None:
    """Another size, two streams in one shard, out of order."""
    frames = two_streams(tmp_path / "frames")
    path = tmp_path / "000-00000.tar"
    for indices, maps in (
        (np.arange(3), np.zeros((3, 5, 6), np.uint8)),
        (np.arange(299, 302), maps_of(np.arange(3))),
        (np.array([2, 1, 3]), maps_of(np.arange(3))),
    ):
        with pytest.raises(ValueError, match="000-00000"):
            write_saliency_shard(path, frames, indices, maps)
    assert not path.exists()
