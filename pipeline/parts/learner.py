"""The learner of `source: replay`: SAC on the environment's state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from datasets import envs
from pretrain.encoders import state
from rl import off_policy
from rl.action_log import ActionLog
from rl.agents import sac
from rl.nets import vector
from rl.policy import Spec, action_count, make_policy


@dataclass(frozen=True)
class Learn:
    """The training in its own process, from its last checkpoint."""

    env: str
    config: Any  # the source's
    folder: Path
    actions: Path  # the action log's file
    logs: Path
    gpu: ClassVar = True
    reads: ClassVar[tuple[Path, ...]] = ()

    @property
    def writes(self) -> tuple[Path, ...]:
        """The folder of the training, and its log."""
        return self.folder, self.logs

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Train to the end, and write the action log."""
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
            log=ActionLog(self.actions),
        )
