"""Who fills the replay buffer that `source: replay` records: SAC on the environment's state."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets import envs
from pretrain.encoders import state
from rl import agents, loops
from rl.agents import sac
from rl.play import Policy, action_count


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
        with closing(envs.make(self.env, num_envs=1, seed=0, draw=False)) as env:
            _, infos = env.reset()
            actions = action_count(env.single_action_space)
        size = infos["state"].shape[1]
        eyes = state.Encoder(state.Config(size), state.Features(), envs.image_shape(self.env))
        agent = agents.make("sac", config, eyes, actions=actions, seed=settings.seed, device=device)
        loops.train(
            Policy(self.env, eyes, agent, settings.seed),
            folder=self.folder,
            checkpoint_every=settings.steps,
            progress=progress,
            logs=self.logs,
            actions=self.actions,
        )
