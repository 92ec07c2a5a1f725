"""Frames on disk: WebDataset tar shards whose bytes depend on nothing but the frames.

Each member of a shard, `{stream:03d}-{start:08d}.npz`, is a chunk of up to 256 consecutive frames
of one stream; `start` counts the stream's frames. Its columns are `image` (n, H, W, C) uint8,
`action`, `reward`, `terminated`, `truncated`, `episode`, `step`, and what the environment adds
(Atari: `lives`, `ram`). Names sort in time order; `webdataset.WebDataset(url).decode()` reads them.

Why chunks: one PNG a frame decodes at some 7,000 frames/s and is ten times as large. Deflate over
256 frames compresses their common background (0.5 to 1 kB a frame of Atari, tens of thousands of
frames/s). The papers' data sets fit memory, so they are decoded once and indexed there.

A stream's last frame may be in the middle of an episode: the recording ended, not the episode, and
neither `terminated` nor `truncated` is set there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from datasets.archive import Columns, pack, unpack_folder
from datasets.errors import FoveaError
from datasets.frame import Frame
from datasets.sealed import write_sealed

CHUNK = 256  # frames in a member

DTYPES = {
    "reward": np.dtype(np.float32),
    "terminated": np.dtype(np.bool_),
    "truncated": np.dtype(np.bool_),
    "episode": np.dtype(np.int32),
    "step": np.dtype(np.int32),
}


@dataclass(frozen=True, slots=True)
class FrameSet:
    """All frames of a data set in memory, in time order stream after stream; a FrameSource."""

    images: NDArray[np.uint8]  # (N, H, W, C); C is 3, or 1 for gray
    action: NDArray[np.int64] | NDArray[np.float32]  # (N,) index, or (N, A)
    reward: NDArray[np.float32]  # (N,), raw
    terminated: NDArray[np.bool_]  # (N,)
    truncated: NDArray[np.bool_]  # (N,)
    episode: NDArray[np.int32]  # (N,), from 0 in each stream
    step: NDArray[np.int32]  # (N,), from 0 in each episode
    stream: NDArray[np.int32]  # (N,)
    info: dict[str, NDArray[np.generic]]  # (N, ...) each; Atari: lives (N,), ram (N, 128)

    def __len__(self) -> int:
        """The number of frames."""
        return len(self.images)

    def __iter__(self) -> Iterator[Frame]:
        """Each frame in order; the arrays are views."""
        for i in range(len(self)):
            action = self.action[i]
            yield Frame(
                image=self.images[i],
                action=int(action) if action.ndim == 0 else cast(NDArray[np.float32], action),
                reward=float(self.reward[i]),
                terminated=bool(self.terminated[i]),
                truncated=bool(self.truncated[i]),
                episode=int(self.episode[i]),
                step=int(self.step[i]),
                info={name: np.asarray(column[i]) for name, column in self.info.items()},
            )


def write_shard(path: Path, frames: Sequence[Frame], *, stream: int, start: int) -> None:
    """Write `frames`, those of `stream` from its number `start` on, as a sealed shard.

    The write is atomic. Equal frames give equal bytes.
    """
    chunks = [frames[begin : begin + CHUNK] for begin in range(0, len(frames), CHUNK)]
    keys = [member_key(stream, start + i * CHUNK) for i in range(len(chunks))]
    write_sealed(path, pack(zip(keys, map(_columns, chunks), strict=True)))


def read_frames(
    folder: Path, digests: Mapping[str, str] | None = None, stream: int | None = None
) -> FrameSet:
    """Decode every shard of a folder, or of one stream, into memory, in the order of the names.

    `digests` (file name -> SHA-256, as in the artifact's manifest) are checked if given. Raises
    FoveaError naming a shard that is missing, damaged, different from the others, or not of frames.
    """
    chunks: list[Columns] = []
    following: dict[int, int] = {}  # stream -> the number its next chunk must start at
    for path, (key, columns) in unpack_folder(folder, digests, stream):
        stream, start = (int(part) for part in key.split("-"))
        expected = following.get(stream, 0)
        if start != expected:
            raise FoveaError(
                f"{path}: stream {stream} goes on with frame {start} instead of {expected}; "
                f"build or fetch {folder} again"
            )
        _check(path, columns, like=chunks[0] if chunks else columns)
        following[stream] = start + len(columns["image"])
        columns["stream"] = np.full(len(columns["image"]), stream, np.int32)
        chunks.append(columns)
    whole = {name: join([chunk.pop(name) for chunk in chunks]) for name in list(chunks[0])}
    images = whole.pop("image")
    known = {name: whole.pop(name) for name in ("action", "stream", *DTYPES)}
    return FrameSet(images, info=whole, **known)  # type: ignore[arg-type]  # checked by _check()


def member_key(stream: int, start: int) -> str:
    """The name of the member whose first frame is number `start` of `stream`."""
    return f"{stream:03d}-{start:08d}"


def join(parts: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    """The parts in one array; each is freed once copied, so that few are in memory twice."""
    whole = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
    end = len(whole)
    while parts:
        part = parts.pop()
        whole[end - len(part) : end] = part
        end -= len(part)
    return whole


def _columns(frames: Sequence[Frame]) -> Columns:
    columns: Columns = {
        "image": np.stack([frame.image for frame in frames]),
        "action": np.array([frame.action for frame in frames]),
    }
    for name, dtype in DTYPES.items():
        columns[name] = np.array([getattr(frame, name) for frame in frames], dtype)
    for name in frames[0].info:
        columns[name] = np.stack([frame.info[name] for frame in frames])
    return columns


def _check(path: Path, columns: Columns, like: Columns) -> None:
    """Raise FoveaError unless these are columns of frames, with the types and shapes of `like`."""
    missing = {"image", "action", *DTYPES} - columns.keys()
    if missing:
        names = ", ".join(sorted(missing))
        raise FoveaError(f"{path}: has no column {names}; name a folder of frames")
    image = columns["image"]
    wrong = [name for name, dtype in DTYPES.items() if columns[name].dtype != dtype]
    if image.ndim != 4 or image.shape[-1] not in (1, 3) or image.dtype != np.uint8 or wrong:
        raise FoveaError(f"{path}: columns {', '.join(['image', *wrong])} are not those of frames")
    kinds = [
        {name: (array.dtype, array.shape[1:]) for name, array in each.items() if name != "stream"}
        for each in (columns, like)
    ]
    if kinds[0] != kinds[1]:
        raise FoveaError(f"{path}: its columns' types or shapes differ from the other shards'")
