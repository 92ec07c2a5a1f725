"""Frames from files: pictures, npz arrays or videos (datasets/clips.py), with what they have of
actions and rewards; else these are 0.

Images are resized to those of the entry's `env`, and turned into its gray where it has one channel:
`env: files/images?height=64&width=64` is for images of no environment. Frames are one stream, in
the order of the episodes; the first `count` are read. `number` is a frame's number among all.
The folder is not among the dependencies that DVC watches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets import envs
from datasets.checked import Checked
from datasets.clips import Clip, Moment, check_size, find_clips
from datasets.errors import FoveaError
from datasets.frame import Frame
from datasets.resized import resized
from datasets.streams import write_stream

ACTION_LOG, FRAME_INFO = None, ("number",)
FOLDER = "recordings"


@dataclass(frozen=True)
class Config(Checked):
    """Where the files are."""

    path: str = "recordings/own"  # a folder or a file below FOLDER, which git ignores

    def rules(self) -> Iterator[str]:
        """Files are in one place, so that an entry means the same on every machine."""
        parts = Path(self.path).parts
        if len(parts) < 2 or parts[0] != FOLDER or ".." in parts:
            yield (
                f"path: {self.path!r}, must be in the folder {FOLDER}, as {FOLDER}/own; a symbolic "
                "link there may lead anywhere"
            )


@dataclass(frozen=True)
class Part:
    """All frames. Picklable."""

    shape: tuple[int, int, int]  # (C, H, W) of the environment's images
    path: str
    clips: tuple[Clip, ...]
    count: int

    def run(self, folder: Path, progress: Callable[[int], None]) -> None:
        """Write the shards that are missing or damaged in `folder`."""
        write_stream(self.frames, folder, 0, self.count, progress)

    def frames(self, start: int) -> Iterator[Frame]:
        """The frames from number `start` on.

        Raises FoveaError for a file that is missing or damaged, for images of several sizes, and
        where there are fewer than `count`.
        """
        number = -1
        for number, frame in enumerate(islice(self._frames(), self.count)):
            if number >= start:
                yield frame
        if number + 1 < self.count:
            raise FoveaError(
                f"count: {self.count}, but {self.path} has {number + 1} images; lower it"
            )

    def _frames(self) -> Iterator[Frame]:
        episode, step = 0, 0
        first: Moment | None = None
        moments = (moment for clip in self.clips for moment in clip.moments())
        for number, moment in enumerate(moments):
            first = first or moment
            check_size(first, moment)
            yield Frame(
                image=_as(moment.image, self.shape),
                action=moment.action,
                reward=moment.reward,
                terminated=moment.terminated,
                truncated=moment.truncated,
                episode=episode,
                step=step,
                info={"number": np.array(number)},
            )
            ended = moment.terminated or moment.truncated
            episode, step = (episode + 1, 0) if ended else (episode, step + 1)


def streams(config: Config, env: str, count: int) -> list[Part]:
    """`count` frames from files, as images of `env`.

    Raises FoveaError for an unknown environment, where files are missing, of several kinds or of
    several sizes, and where there are fewer pictures than `count`.
    """
    envs.check(env)
    if count < 1:
        raise FoveaError(f"count: {count}, must be at least 1")
    part = Part(envs.image_shape(env), config.path, tuple(find_clips(Path(config.path))), count)
    pictures = [len(clip.files) for clip in part.clips if clip.of_pictures]
    if pictures and sum(pictures) < count:
        raise FoveaError(f"count: {count}, but {config.path} has {sum(pictures)} images; lower it")
    return [part]


def _as(image: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) -> an environment's image (height, width, C)."""
    channels, height, width = shape
    if channels == 1:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)[..., None]
    return resized(image, height, width)
