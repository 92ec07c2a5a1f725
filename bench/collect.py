"""Collecting frames: our Atari wrapper against Gymnasium's AtariPreprocessing on the same game.

Theirs is configured as close to ours as possible: four frames a step, maximum of the last two, no
sticky actions, 96x96 RGB. Two differences remain: it always resizes by area, and presses no FIRE.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import ale_py
import cv2
import gymnasium
from gymnasium.wrappers import AtariPreprocessing

from datasets import envs
from datasets.sources.random import Config, streams

GAME = "MsPacman"  # its minimal action set has no FIRE: both play the same episodes
ROUNDS, STEPS = 7, 600


def run() -> dict[str, object]:
    """Median frames/s of interleaved rounds, and of the rounds' ratios (ours / theirs)."""
    ours, theirs = envs.single(f"atari/{GAME}", seed=0, index=0), _gymnasium()
    cv2.setNumThreads(1)
    rounds = [(_frames_per_second(ours), _frames_per_second(theirs)) for _ in range(ROUNDS)]
    with tempfile.TemporaryDirectory() as folder:
        [stream] = streams(Config(streams=1), f"atari/{GAME}", 1024)
        start = time.perf_counter()
        stream.run(Path(folder), lambda count: None)
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    return {
        "what": f"{GAME}, frames/s on one core, against gymnasium's AtariPreprocessing",
        "ours": statistics.median(ours for ours, _ in rounds),
        "theirs": statistics.median(theirs for _, theirs in rounds),
        "ratio": statistics.median(ours / theirs for ours, theirs in rounds),
        "rounds": ROUNDS,
        "ours_with_shards_written": 1024 / seconds,
        "bytes_per_frame": size / 1024,
    }


def _gymnasium() -> gymnasium.Env[Any, Any]:
    gymnasium.register_envs(ale_py)
    raw = gymnasium.make(f"ALE/{GAME}-v5", frameskip=1, repeat_action_probability=0.0)
    return AtariPreprocessing(raw, frame_skip=4, screen_size=96, grayscale_obs=False)


def _frames_per_second(env: gymnasium.Env[Any, Any]) -> float:
    """Frames/s of the same actions from the start of an episode."""
    env.reset(seed=0)
    start = time.perf_counter()
    for action in itertools.islice(itertools.cycle(range(9)), STEPS):
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return STEPS / (time.perf_counter() - start)
