"""Who fills the replay buffer that `source: replay` records: SAC on the environment's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from datasets import envs
from datasets.sealed import write_sealed
from pretrain.encoders import state
from rl import off_policy
from rl.agents import sac
from rl.nets import vector
from rl.policy import Spec, action_count, make_policy


@dataclass
class ActionLog:
    """Every action, every reward as the environment gave it, and the steps that ended an episode.

    With those and the seed an environment goes the same way again, and shows whether it does.
    """

    path: Path  # of the file that they end in
    actions: list[NDArray[np.generic]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def add(self, action: NDArray[np.generic], reward: float, *, ended: bool) -> None:
        """One step."""
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


@dataclass(frozen=True)
class Learn:
    """The training, in a process of its own; picks up its last checkpoint."""

    env: str
    config: Any  # the source's
    folder: Path
    actions: Path  # the file for the actions taken
    logs: Path

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Train to the end, and leave the actions taken."""
        torch.set_num_threads(1)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        settings = self.config
        config = sac.Config(
            steps=settings.steps,
            learn_start=settings.learn_start,
            replay_capacity=settings.steps,
            hidden=settings.hidden,
            learning_rate=settings.learning_rate,
        )
        spec = Spec(
            env=self.env,
            agent="sac",
            config=config,
            net="vector",
            net_config=vector.Config(),
            actions=action_count(envs.action_space(self.env)),
        )
        encoder = state.Encoder(state.Config(), state.Features(), envs.image_shape(self.env))
        off_policy.train(
            make_policy(spec, encoder, seed=settings.seed, device=device),
            folder=self.folder,
            checkpoint_every=settings.steps,
            progress=progress,
            logs=self.logs,
            recorder=ActionLog(self.actions),
        )
