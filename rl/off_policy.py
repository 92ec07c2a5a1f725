"""Training an agent that learns from replay, on a frozen encoder.

There is one environment, and every frame is encoded once, when it is observed. A checkpoint has all
random generators, the agent, the replay's rows, the emulator and the frame stack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from gymnasium.vector import SyncVectorEnv
from torch import Tensor

from datasets import envs
from datasets.errors import UnstableError
from pretrain.encoder import Obs
from rl.action_log import ActionLog
from rl.actor import Action, Actor, random_action
from rl.policy import Policy
from rl.replay import Replay
from rl.run import Part, Run, environment_part, generator_part, stateful


def train(
    policy: Policy,
    *,
    folder: Path,
    checkpoint_every: int,
    progress: Callable[[int], None],
    logs: Path | None = None,
    resume_every: int = 1_000,
    log: ActionLog | None = None,
) -> None:
    """Train `policy.agent` for its config's steps, from the last checkpoint in `folder` if any.

    `progress` is called with the number of new steps. Weights are saved every `checkpoint_every`
    steps and at the end. `resume_every` is the number of steps between checkpoints, which changes
    no result. `logs` is the folder of a TensorBoard log, `log` records every action.

    Raises:
        DivergedError: the loss, the features, the action or the simulation became infinite or NaN;
            `failed.json` records it, and `curve.csv` and earlier weights are kept.
        FoveaError: the encoder does not fit the environment, or a checkpoint is damaged.
    """
    agent, config = policy.agent, policy.agent.config
    run = Run(folder, policy.seed, logs)
    if run.finished:
        progress(config.steps)
        return
    with closing(run), closing(make_environment(policy)) as environment:
        actor, replay = Actor(policy), make_replay(policy)
        random = np.random.default_rng([policy.seed, 1])  # [seed, 0] is the environment's
        parts: dict[str, Part] = {
            "agent": stateful(agent),
            "actor": stateful(actor),
            "replay": (partial(replay.save, run.resume), partial(replay.load, run.resume)),
            "environment": environment_part(environment),
            "random": generator_part(random),
        }
        if log:
            parts["log"] = stateful(log)
        if not run.begin(parts, agent.device):
            actor.begin(*environment.reset())
        progress(run.step)
        while run.step < config.steps:
            action, _ = actor.act(explore=True)
            _check(run, actor, action)
            if run.step < config.learn_start:
                action = random_action(environment.single_action_space, random)[None]
            try:
                images, reward, terminated, truncated, infos = environment.step(action)
            except UnstableError:
                run.fail("the simulation's state is", "MUJOCO_LOG.TXT has the reason; try another "
                         "seed")  # fmt: skip
            ended = terminated | truncated
            replay.add(
                actor.obs,
                action[0],
                float(np.sign(reward[0]) if config.rewards == "sign" else reward[0]),
                terminated=bool(terminated[0]),
                truncated=bool(truncated[0]),
                final=_final(actor, infos) if truncated[0] else None,
            )
            if log:
                log.add(action[0], float(reward[0]), ended=bool(ended[0]))
            actor.observe(images, infos, action=action, reward=reward, first=ended)
            run.advance(1, infos, ended)
            since = run.step - config.learn_start
            if since > 0 and since % config.update_every == 0:
                run.log(_learn(policy, replay, run.step))
            progress(1)
            if run.is_due(checkpoint_every) or run.step == config.steps:
                run.save_weights(agent.policy)
            if run.is_due(resume_every) and run.step < config.steps:
                run.checkpoint()
        if log:
            log.save()
        run.finish(
            updates=(config.steps - config.learn_start) // config.update_every,
            parameters=sum(parameter.numel() for parameter in agent.policy.parameters()),
        )


def make_environment(policy: Policy) -> SyncVectorEnv:
    """The environment of a seed; not rendered if the encoder does not use images."""
    env = envs.make(
        policy.spec.env,
        num_envs=1,
        seed=policy.seed,
        life_loss_ends=True,
        images=policy.encoder.info is None,
    )
    return cast(SyncVectorEnv, env)


def make_replay(policy: Policy) -> Replay:
    """An empty replay of the agent's capacity, or of its steps if they are fewer."""
    config = policy.agent.config
    # A truncated episode takes one more row, so the last rows may overwrite the oldest.
    capacity = max(min(config.replay_capacity, config.steps), config.n_step + config.stack + 1)
    return Replay(
        policy.example,
        capacity=capacity,
        stack=config.stack,
        steps=config.n_step,
        gamma=config.gamma,
        priority_exponent=config.priority_exponent,
        seed=policy.seed,
        device=policy.agent.device,
        action_size=policy.spec.actions if policy.continuous else None,
    )


def _final(actor: Actor, infos: Mapping[str, Any]) -> Obs:
    """Features of the true last frame of a truncated episode."""
    return actor.encode(infos["final_obs"][0][None], infos["final_info"])


def _learn(policy: Policy, replay: Replay, step: int) -> dict[str, Tensor]:
    """One update on a sampled batch; returns its scalars.

    It is a function of its own, so that a batch is freed before the next is allocated. Megabytes of
    pixels would otherwise be on other memory pages each time, which costs a tenth of the time.
    """
    config = policy.agent.config
    beta = config.priority_weight + (1 - config.priority_weight) * step / config.steps
    batch = replay.sample(config.batch_size, beta)
    scalars = policy.agent.update(batch)
    if "priority" in scalars:
        replay.reprioritise(batch.index, scalars.pop("priority"))
    return scalars


def _check(run: Run, actor: Actor, action: Action) -> None:
    """Raise DivergedError where loss, features or action are NaN or infinite.

    The action has just been read, so the device is idle, and reading more costs almost nothing.
    """
    run.check_loss()
    if not actor.finite():
        run.fail("the encoder's features are", "pretrain the encoder again")
    if not np.isfinite(action).all():  # a finite loss may have a gradient that is not
        run.fail("the action is", "lower learning_rate")
