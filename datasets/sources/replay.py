"""Frames of the replay buffer that Soft Actor-Critic fills while it learns the task from its state,
as ViSaRL pretrains on (Liang et al. 2024, sec. II-C: 200k images of a state-based SAC's replay).

The learner is rl's own, which pipeline/collect.py runs first. It reads the state, so nothing is
rendered while it learns, and only its actions and rewards are stored. The actions are then repeated
in the same environment, which is deterministic: equal rewards show that. Every (steps/count)-th
frame is rendered and recorded, from the first random step to the last. Streams share the frames;
an episode that ends before a stream's first frame is reset but not played.

Consecutive frames are that many steps apart; action and reward are those of the step at the frame.
A smaller learner for two CPU cores: `hidden: 256, learning_rate: 3e-4`. Its success rate is in the
manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from datasets import envs
from datasets.checked import Checked, Count, Natural, Positive, Range, Width
from datasets.errors import FoveaError
from datasets.frame import Frame
from datasets.streams import Streams, write_stream

ACTION_LOG = "actions.safetensors"  # action (steps, A), reward (steps,), end (episodes,) step
FRAME_INFO = None


@dataclass(frozen=True)
class Config(Checked):
    """The learner's settings (rl/agents/sac.py), and the number of streams."""

    seed: Natural = 0
    streams: Streams = 8  # parts of the training; each gives an equal share of the frames
    steps: Count = 1_000_000
    learn_start: Annotated[int, Range(2)] = 1_000
    hidden: Width = 1024
    learning_rate: Positive = 1e-4

    def rules(self) -> Iterator[str]:
        """The learner must have steps after `learn_start`."""
        if self.steps <= self.learn_start:
            yield f"steps: {self.steps}, must exceed learn_start {self.learn_start}"


@dataclass(frozen=True)
class Part:
    """Frames `first` to `first + count` of `total`, of a training of `steps` steps. Picklable."""

    env: str
    seed: int  # of the training
    index: int
    first: int
    count: int
    total: int
    steps: int
    learner: Path  # the folder with ACTION_LOG

    def run(self, folder: Path, progress: Callable[[int], None]) -> None:
        """Write the shards that are missing or damaged in `folder`."""
        write_stream(self.frames, folder, self.index, self.count, progress)

    def frames(self, start: int) -> Iterator[Frame]:
        """The part's frames from number `start` on, rendered in this call.

        Raises FoveaError where a reward is not the one that the learner got.
        """
        actions, rewards, ends = _load(self.learner / ACTION_LOG)
        steps = [(self.first + i) * self.steps // self.total for i in range(self.count)]
        first, episode = (int(np.searchsorted(ends, steps[i], "right")) for i in (0, start))
        now = int(ends[episode - 1]) if episode else 0
        env = envs.single(self.env, seed=self.seed, index=0, images=False)  # the learner's
        names = envs.frame_info(self.env)
        for _ in range(episode + 1):
            _, info = env.reset()
        step = 0
        for number in steps[start:]:
            while now <= number:
                image = cast(Any, env).image() if now == number else None
                columns = {name: np.asarray(info[name]) for name in names}
                _, reward, terminated, truncated, info = env.step(actions[now])
                if reward != rewards[now]:
                    raise FoveaError(
                        f"{self.learner / ACTION_LOG}: at step {now} {self.env} gives another "
                        "reward than the learner got, as on another processor or version; "
                        f"delete {self.learner} and collect again"
                    )
                if image is not None:
                    yield Frame(
                        image, actions[now], float(reward), terminated, truncated,
                        episode - first, step, columns,
                    )  # fmt: skip
                now, step = now + 1, step + 1
                if terminated or truncated:
                    _, info = env.reset()
                    episode, step = episode + 1, 0
        env.close()


def streams(config: Config, env: str, count: int, learner: Path) -> list[Part]:
    """`count` frames of `env` from the training whose actions will be in the folder `learner`.

    Raises FoveaError for an environment that is unknown or has no state, and for a count that is
    below 1 or above the number of steps.
    """
    envs.check(env)
    if "state" not in envs.frame_info(env) or envs.actions(env) != "continuous":
        raise FoveaError(
            f"source replay: {env} must have a state and continuous actions, as Meta-World's "
            "tasks have"
        )
    if not 1 <= count <= config.steps:
        raise FoveaError(f"count: {count}, must be 1 to the learner's {config.steps} steps")
    bounds = [count * index // config.streams for index in range(config.streams + 1)]
    return [
        Part(env, config.seed, index, first, end - first, count, config.steps, learner)
        for index, (first, end) in enumerate(pairwise(bounds))
        if end > first
    ]


def _load(path: Path) -> tuple[Any, Any, Any]:
    try:
        arrays = load_file(path)
        return arrays["action"], arrays["reward"], arrays["end"]
    except (OSError, SafetensorError, KeyError) as error:
        raise FoveaError(f"{path}: not a learner's actions ({error}); collect again") from error
