"""Saliency maps on disk, joined to their frames by key.

A folder of maps holds no images: its shards are those of archive.py with the columns `saliency`
(n, H, W) uint8, `frame` (n,) the frame's number in its stream, and `crc32` (n,) of the frame's
bytes, so that maps of other frames are refused. Maps may cover every frame (a predictor's labels)
or some (annotations).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.archive import Columns, Member, pack, unpack_folder
from datasets.errors import FoveaError
from datasets.sealed import write_sealed
from datasets.shards import CHUNK, FrameSet, join, member_key

Indices = NDArray[np.int64]
Maps = NDArray[np.uint8]


def write_saliency_shard(path: Path, frames: FrameSet, indices: Indices, maps: Maps) -> None:
    """Write maps (n, H, W) of `frames[indices]`, ascending and of one stream, as a sealed shard.

    The write is atomic; equal maps of equal frames give equal bytes.
    """
    stream = int(frames.stream[indices[0]])
    if (frames.stream[indices] != stream).any() or (np.diff(indices) <= 0).any():
        raise ValueError(f"{path}: a shard's maps must be of one stream, in time order")
    if maps.shape != (len(indices), *frames.images.shape[1:3]) or maps.dtype != np.uint8:
        raise ValueError(f"{path}: maps of {maps.dtype}{maps.shape} do not fit their frames")
    numbers = indices - _first(frames, stream)
    members: list[Member] = []
    for begin in range(0, len(indices), CHUNK):
        part = slice(begin, begin + CHUNK)
        columns: Columns = {
            "saliency": maps[part],
            "frame": numbers[part].astype(np.int32),
            "crc32": _crc32(frames.images[indices[part]]),
        }
        members.append((member_key(stream, int(numbers[begin])), columns))
    write_sealed(path, pack(members))


def read_saliency(
    folder: Path, frames: FrameSet, digests: Mapping[str, str] | None = None
) -> tuple[Indices, Maps]:
    """The maps (M, H, W) of a folder, and their indices (M,) into `frames`, ascending.

    Raises FoveaError naming a shard that is missing or damaged or whose maps are of other frames.
    """
    indices, maps = [], []
    for path, (key, columns) in unpack_folder(folder, digests):
        if set(columns) != {"saliency", "frame", "crc32"}:
            raise FoveaError(f"{path}: its columns are not saliency maps; name another folder")
        stream = int(key.split("-")[0])
        mine = frames.stream == stream
        number = columns["frame"].astype(np.int64)
        fits = (
            columns["saliency"].shape[1:] == frames.images.shape[1:3]
            and columns["saliency"].dtype == np.uint8
            and number.min() >= 0
            and number.max() < mine.sum()
        )
        where = number + _first(frames, stream) if fits else number
        if not fits or (_crc32(frames.images[where]) != columns["crc32"]).any():
            raise FoveaError(f"{path}: its maps are of other frames; label these frames again")
        indices.append(where)
        maps.append(columns["saliency"])
    order = np.concatenate(indices)
    if (np.diff(order) <= 0).any():
        raise FoveaError(
            f"{folder}: its maps are out of order, or two are of one frame; build it again"
        )
    return order, join(maps).astype(np.uint8, copy=False)


def _first(frames: FrameSet, stream: int) -> int:
    """The index of a stream's first frame; streams are contiguous."""
    return int(np.argmax(frames.stream == stream))


def _crc32(images: NDArray[np.uint8]) -> NDArray[np.uint32]:
    return np.array([zlib.crc32(image.tobytes()) for image in images], np.uint32)
