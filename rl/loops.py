"""Training off-policy agents on a frozen encoder: one seed, or several as one on a GPU.

Every frame is encoded once, when it is seen. Seeds that train together share the encoder's passes,
the acting and the updates (rl/seeds.py); their games, replays and generators are their own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from torch import Tensor

from datasets import envs
from pretrain.encoder import Obs
from rl.agent import Agent, Batch, State
from rl.features import Images, Infos, encode, sees
from rl.play import Policy
from rl.run import DivergedError, Run, Seed
from rl.seeds import Seeds, Stackable


class Learner(Protocol):
    """An agent, or several as one: rows of what it acts on are seeds, and so are the batches."""

    def act(
        self, obs: Obs, state: State | None, first: Tensor, *, explore: bool
    ) -> tuple[Tensor, State, dict[str, Tensor]]:
        """As `Agent.act`."""
        ...

    def update(self, batches: Sequence[Batch]) -> list[dict[str, Tensor]]:
        """As `Agent.update`, seed by seed."""
        ...


def train(
    policy: Policy,
    *,
    folder: Path,
    checkpoint_every: int,
    progress: Callable[[int], None],
    logs: Path | None = None,
    resume_every: int = 1_000,
    actions: Path | None = None,
) -> None:
    """Train `policy.agent` for its config's steps, from the last checkpoint in `folder` if any.

    `progress` is told how many more steps are done. Weights are kept every `checkpoint_every` steps
    and at the end; `resume_every` is how much a kill may cost, and changes no result. `logs` and
    `actions` are those of `Seed`.

    Raises:
        DivergedError: the loss, the features, the action or the simulation became infinite or NaN;
            `failed.json` says so, `curve.csv` and earlier weights stay.
        FoveaError: the encoder does not fit the environment, or a checkpoint is damaged.
    """
    failed = train_together(
        [Seed(policy, folder, logs, actions)],
        checkpoint_every=checkpoint_every,
        progress=progress,
        resume_every=resume_every,
    )
    if failed:
        raise failed[0]


def train_together(
    seeds: Sequence[Seed],
    *,
    checkpoint_every: int,
    progress: Callable[[int], None],
    resume_every: int = 1_000,
) -> list[DivergedError]:
    """`train` for several seeds of one policy step by step; more than one need `Stackable` agents.

    A seed that is behind the others, where they were killed in between, catches up first. One that
    diverges leaves, and the others go on: returns the errors of those.
    """
    failed: list[DivergedError] = []
    with ExitStack() as stack:
        runs = []
        for seed in seeds:
            if (seed.folder / "metrics.json").exists():
                shutil.rmtree(seed.folder / "resume", ignore_errors=True)
                progress(seed.policy.agent.config.steps)
                continue
            run = stack.enter_context(closing(Run(seed, _environment(seed.policy))))
            run.begin()
            progress(run.step)
            runs.append(run)
        group: list[Run] = []
        while runs:
            behind = min(run.step for run in runs)
            now = [run for run in runs if run.step == behind]
            if now != group:
                group, learner = now, _learner([run.agent for run in now])
            lost = _advance(group, learner)
            if not lost:
                progress(len(group))
                lost = _each(group, lambda run: _keep(run, checkpoint_every, resume_every))
            failed += lost.values()
            runs = [run for run in runs if run not in lost and run.step < run.config.steps]
    return failed


def _environment(policy: Policy) -> SyncVectorEnv:
    look = sees(policy.encoder)
    made = envs.make(policy.env, num_envs=1, seed=policy.seed, life_loss_ends=True, draw=look)
    return cast(SyncVectorEnv, made)


def _learner(agents: Sequence[Agent]) -> Learner:
    return _Alone(agents[0]) if len(agents) == 1 else Seeds(cast(Sequence[Stackable], agents))


class _Alone:
    """One agent as a Learner."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.act = agent, agent.act

    def update(self, batches: Sequence[Batch]) -> list[dict[str, Tensor]]:
        return [self.agent.update(batches[0])]


def _advance(group: Sequence[Run], learner: Learner) -> dict[Run, DivergedError]:
    """One environment step of each run, and the update due after it, if any.

    Where some have diverged nothing is done; returns those.
    """
    obs = _joined([run.obs for run in group])
    states = [run.state for run in group if run.state is not None]
    first = torch.cat([run.first for run in group])
    wanted, state, _ = learner.act(obs, _joined(states) if states else None, first, explore=True)
    actions = dict(zip(group, wanted.cpu().numpy(), strict=True))
    # Here the device is idle: looking costs next to nothing.
    if lost := _each(group, lambda run: run.check(actions[run])):
        return lost
    shown: list[tuple[Images, Infos]] = []
    # Only a simulation is lost here, and agents of simulations train alone: no other has acted.
    if lost := _each(group, lambda run: shown.append(run.act(actions[run]))):
        return lost
    policy = group[0].policy
    images = np.concatenate([images for images, _ in shown])
    name = policy.encoder.info
    infos = {name: np.concatenate([info[name] for _, info in shown])} if name else {}
    seen = encode(policy.encoder, policy.env, images, infos, policy.agent.device)
    for row, run in enumerate(group):
        run.state, run.obs = _row(state, row), _row(seen, row)
    if group[0].due:
        batches = [run.batch() for run in group]
        for run, batch, scalars in zip(group, batches, learner.update(batches), strict=True):
            run.learned(batch, scalars)
    return {}


def _keep(run: Run, checkpoint_every: int, resume_every: int) -> None:
    """What is to be written after this step."""
    over = run.step == run.config.steps
    if over or run.step % checkpoint_every == 0:
        run.keep_weights()
    if over:
        run.finish()
    elif run.step % resume_every == 0:
        run.checkpoint()


def _each(group: Sequence[Run], do: Callable[[Run], None]) -> dict[Run, DivergedError]:
    """Do something with every run; returns those that turn out to have diverged."""
    lost = {}
    for run in group:
        try:
            do(run)
        except DivergedError as error:
            lost[run] = error
    return lost


def _joined(parts: Sequence[Obs]) -> Obs:
    """Batches one after the other."""
    if len(parts) == 1:
        return parts[0]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _row(batch: Obs, row: int) -> Obs:
    """A batch of one."""
    return {key: value[row : row + 1] for key, value in batch.items()}
