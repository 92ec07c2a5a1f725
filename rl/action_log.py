"""The actions and rewards of a training, by which its environment can be played again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from datasets.sealed import write_sealed


@dataclass
class ActionLog:
    """Every action, every raw reward, and the steps that ended an episode.

    The actions and the seed repeat the training's frames; equal rewards show that they do.
    """

    path: Path  # of the file that save() writes
    actions: list[NDArray[np.generic]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def add(self, action: NDArray[np.generic], reward: float, *, ended: bool) -> None:
        """Record one step."""
        self.actions.append(action)
        self.rewards.append(reward)
        if ended:
            self.ends.append(len(self.actions))

    def state_dict(self) -> dict[str, Tensor]:
        """Actions (steps, A), rewards (steps,) and ends (episodes,)."""
        return {
            "action": torch.from_numpy(np.array(self.actions)),
            "reward": torch.tensor(self.rewards, dtype=torch.float64),
            "end": torch.tensor(self.ends, dtype=torch.int64),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.actions = list(state["action"].cpu().numpy())
        self.rewards, self.ends = state["reward"].tolist(), state["end"].tolist()

    def save(self) -> None:
        """Write the file."""
        write_sealed(self.path, save(self.state_dict()))
