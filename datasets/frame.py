"""A frame: one image of an environment, and the step that followed it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Frame:
    """One environment step: the image, the action in response to it, and the outcome.

    `terminated` and `truncated` say how the step ended the episode; there is no merged `done`.
    """

    image: NDArray[np.uint8]  # (H, W, C), never stacked
    action: int | NDArray[np.float32]  # index of a discrete action, or (A,) continuous
    reward: float  # raw, never clipped
    terminated: bool
    truncated: bool
    episode: int  # counts from 0 within a stream (one environment's frames in time order)
    step: int  # counts from 0 within the episode
    # The environment's info beside `image`; Atari: lives () int64, ram (128,) uint8.
    info: dict[str, NDArray[np.generic]] = field(default_factory=dict)


class FrameSource(Protocol):
    """Frames in time order; iterating twice gives the same frames twice."""

    def __iter__(self) -> Iterator[Frame]:
        """Each frame once."""
        ...
