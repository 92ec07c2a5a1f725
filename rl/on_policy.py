"""Training an agent that learns from rollouts of its current policy, on a frozen encoder.

All environments run in one thread: the emulator takes most of a step's time, and another core is
better used by another seed than by another process of this one. Frames are encoded once, when they
are observed. Checkpoints are written between updates, so they contain no rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray
from torch import Tensor

from datasets import envs
from datasets.errors import UnstableError
from pretrain.modules.precision import autocast
from rl.actor import Action, Actor
from rl.agent import OnPolicyAgent, Rollout
from rl.policy import Policy
from rl.run import Part, Run, environment_part, stateful


def train(
    policy: Policy,
    *,
    folder: Path,
    checkpoint_every: int,
    progress: Callable[[int], None],
    logs: Path | None = None,
    resume_every: int = 50_000,
) -> None:
    """Train `policy.agent` for its config's steps, from the last checkpoint in `folder` if any.

    Steps are those of all environments together. `progress` is called with the number of new steps.
    Weights are saved at the first update after every `checkpoint_every` steps and at the end.
    `resume_every` is the number of steps between checkpoints, which changes no result. `logs` is
    the folder of a TensorBoard log.

    Raises:
        DivergedError: the loss, the features, the policy or the simulation became infinite or NaN;
            `failed.json` records it, and `curve.csv` and earlier weights are kept.
        FoveaError: the encoder does not fit the environment, or a checkpoint is damaged.
    """
    agent, config = cast(OnPolicyAgent, policy.agent), policy.agent.config
    run = Run(folder, policy.seed, logs)
    if run.finished:
        progress(config.steps)
        return
    with closing(run), closing(make_environment(policy)) as environment:
        actor = Actor(policy, config.num_envs)
        auxiliary = agent.core.auxiliary(config.precision, policy.seed)
        parts: dict[str, Part] = {
            "agent": stateful(agent),
            "auxiliary": stateful(auxiliary),
            "actor": stateful(actor),
            "environment": environment_part(environment),
        }
        if not run.begin(parts, agent.device):
            actor.begin(*environment.reset())
        progress(run.step)
        while run.step < config.steps:
            before = run.step
            with autocast(config.precision, agent.device):  # weights are converted once
                rollout = collect(run, environment, actor, agent)
            _check(run, actor, rollout)
            run.count_from(before)
            run.log(agent.update(rollout) | auxiliary.update(rollout.obs, rollout.first))
            progress(run.step - before)
            if run.is_due(checkpoint_every) or run.step == config.steps:
                run.save_weights(agent.policy)
            if run.is_due(resume_every) and run.step < config.steps:
                run.checkpoint()
        run.finish(
            updates=config.steps // (config.num_envs * config.unroll),
            parameters=sum(parameter.numel() for parameter in agent.policy.parameters()),
        )


def make_environment(policy: Policy) -> SyncVectorEnv:
    """The environments of a seed; not rendered if the encoder does not use images."""
    env = envs.make(
        policy.spec.env,
        num_envs=policy.agent.config.num_envs,
        seed=policy.seed,
        life_loss_ends=True,
        images=policy.encoder.info is None,
    )
    return cast(SyncVectorEnv, env)


def collect(run: Run, environment: SyncVectorEnv, actor: Actor, agent: OnPolicyAgent) -> Rollout:
    """`unroll` steps of all environments, and the value of their last observation."""
    config, state = agent.config, actor.state
    steps: list[dict[str, Tensor]] = []
    frames = []
    for _ in range(config.unroll):
        obs, first = actor.obs, actor.first
        action, extras = actor.act(explore=True)
        try:
            images, reward, terminated, truncated, infos = environment.step(action)
        except UnstableError:
            run.fail("the simulation's state is", "try another seed")
        ended = terminated | truncated
        reward = np.sign(reward) if config.rewards == "sign" else reward
        target = reward + config.gamma * _last_values(
            actor, agent, infos, truncated, action, reward
        )
        actor.observe(images, infos, action=action, reward=reward, first=ended)
        run.advance(len(action), infos, ended)
        frames.append(obs)
        steps.append(
            {
                "first": first,
                "action": torch.from_numpy(action),
                "reward": torch.from_numpy(target).float(),
                "discount": torch.from_numpy(np.where(ended, 0, config.gamma)).float(),
                "log_prob": extras["log_prob"],
                "value": extras["value"],
            }
        )
    return Rollout(
        obs=_stack(frames, actor.device),
        state=state,
        last_value=agent.value(actor.obs, actor.state, actor.first),
        **_stack(steps, actor.device),
    )


def _last_values(
    actor: Actor,
    agent: OnPolicyAgent,
    infos: Mapping[str, Any],
    truncated: NDArray[np.bool_],
    action: Action,
    reward: NDArray[np.float64],
) -> NDArray[np.float32]:
    """V (N,) of the true last frames of truncated episodes, 0 for the other environments."""
    values, rows = np.zeros(len(truncated), np.float32), np.flatnonzero(truncated)
    if len(rows):
        images = np.stack(list(infos["final_obs"][rows]))
        obs = actor.encode(images, {key: info[rows] for key, info in infos["final_info"].items()})
        last = {"action": torch.from_numpy(action), "reward": torch.from_numpy(reward).float()}
        obs |= {key: last[key][rows].to(actor.device) for key in agent.core.reads}
        state = {key: value[rows] for key, value in actor.state.items()}
        first = torch.zeros(len(rows), dtype=torch.bool, device=actor.device)
        values[rows] = agent.value(obs, state, first).cpu().numpy()
    return values


def _stack(steps: list[dict[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """Every key (N, ...) of T steps -> (T, N, ...)."""
    return {key: torch.stack([step[key] for step in steps]).to(device) for key in steps[0]}


def _check(run: Run, actor: Actor, rollout: Rollout) -> None:
    """Raise DivergedError where loss, features or policy are NaN or infinite."""
    run.check_loss()
    if not actor.finite():
        run.fail("the encoder's features are", "pretrain the encoder again")
    if not (rollout.log_prob.isfinite().all() and rollout.value.isfinite().all()):
        # A finite loss may have a gradient that is not.
        run.fail("the policy is", "lower learning_rate")
