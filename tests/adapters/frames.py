"""A Gymnasium environment that shows given images in turn. It imports nothing of the repository."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray


class Frames(gymnasium.Env[Any, Any]):
    """The images (N, H, W, C) uint8 in turn; an episode has 20 steps."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images, self._now = images, 0
        self.action_space = gymnasium.spaces.Discrete(2)
        self.observation_space = gymnasium.spaces.Box(0, 255, images.shape[1:], np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """The first image."""
        super().reset(seed=seed)
        self._now = 0
        return self._images[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The next image."""
        self._now += 1
        image = self._images[self._now % len(self._images)]
        return image, float(action), False, self._now == 20, {}
