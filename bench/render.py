"""Rendering Meta-World: without shadows and reflections against with them, and one process a core.

Frames/s of whole steps, which include the simulation. Each process renders in one thread; by
default, Mesa uses all cores even for one process.
"""

from __future__ import annotations

import os
import statistics
import time
from contextlib import closing
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from datasets import envs
from datasets.envs.metaworld import THREADS
from pipeline.runtime.parallel import cores

TASK = "metaworld/drawer-open"
ROUNDS, STEPS, SLOW_STEPS = 5, 100, 10  # a round's steps; fewer for `render=full`


def run() -> dict[str, object]:
    """Median frames/s of interleaved rounds, and of the rounds' ratios."""
    count = cores()
    os.environ.setdefault(THREADS, "0")
    with (
        closing(envs.make(TASK, num_envs=1, seed=0)) as fast,
        closing(envs.make(f"{TASK}?render=full", num_envs=1, seed=0)) as full,
        closing(envs.make(TASK, num_envs=count, seed=0)) as all_cores,
    ):
        for environment in (fast, full, all_cores):
            environment.reset()
        rounds = [
            (_frames(fast, STEPS), _frames(full, SLOW_STEPS), _frames(all_cores, STEPS))
            for _ in range(ROUNDS)
        ]
    return {
        "what": f"{TASK}, 64x64 frames/s, one process a core beside one, and `render=full`",
        "fast_per_second": statistics.median(fast for fast, _, _ in rounds),
        "full_per_second": statistics.median(full for _, full, _ in rounds),
        "ratio": statistics.median(fast / full for fast, full, _ in rounds),
        "cores": count,
        "all_cores_per_second": statistics.median(many for _, _, many in rounds),
        "all_cores_ratio": statistics.median(many / fast for fast, _, many in rounds),
    }


def _frames(environment: VectorEnv[Any, Any, Any], steps: int) -> float:
    """Frames/s of all environments together, under random actions."""
    random = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(steps):
        environment.step(random.uniform(-1, 1, environment.action_space.shape).astype(np.float32))
    return steps * environment.num_envs / (time.perf_counter() - start)
