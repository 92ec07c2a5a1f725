"""What a frame is: one image as the environment showed it, and the step that was taken from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Frame:
    """One environment step: `action` was taken after seeing `image`; the rest is what came of it.

    `terminated` and `truncated` say how the step ended the episode, never merged into a `done`.
    """

    image: NDArray[np.uint8]  # (H, W, C), never stacked
    action: int | NDArray[np.float32]  # index of a discrete action, or (A,) continuous
    reward: float  # as the game gives it, never clipped
    terminated: bool
    truncated: bool
    episode: int  # counts from 0 within a stream (one environment's frames in time order)
    step: int  # counts from 0 within the episode
    # What the environment knows of `image`; Atari: lives () int64, ram (128,) uint8.
    info: dict[str, NDArray[np.generic]] = field(default_factory=dict)


class FrameSource(Protocol):
    """Frames in time order; iterating twice gives the same frames twice."""

    def __iter__(self) -> Iterator[Frame]:
        """Each frame once."""
        ...
