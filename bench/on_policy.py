"""Training A2C and PPO on Breakout from pixels: CPU time a step, ours against Stable-Baselines3.

`python -m bench.on_policy [PYTHON]`: PYTHON is the interpreter of a virtual environment that has
stable-baselines3, ale-py and opencv; without it only ours is measured. The papers' settings, one
thread, interleaved rounds, emulator included; the first steps of each run are not counted.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

import torch

from bench import results
from bench.masks import milliseconds
from pretrain.encoders import pixels
from pretrain.modules.precision import Precision
from rl.agents import a2c, ppo
from rl.nets import nature_cnn
from rl.policy import Spec, make_policy

ROUNDS = 3
WARM, STEPS = {"a2c": 800, "ppo": 1_024}, {"a2c": 4_000, "ppo": 3_072}
PEER = """
import sys, time, torch, gymnasium, ale_py
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecFrameStack
torch.set_num_threads(1)
gymnasium.register_envs(ale_py)
name, warm, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
count = 16 if name == "a2c" else 8
env = VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", n_envs=count, seed=0), 4)
shared = dict(env=env, gamma=0.99, ent_coef=0.01, vf_coef=0.5, max_grad_norm=0.5, device="cpu")
if name == "a2c":
    model = A2C("CnnPolicy", learning_rate=7e-4, n_steps=5, **shared)
else:
    model = PPO("CnnPolicy", learning_rate=2.5e-4, n_steps=128, batch_size=256, n_epochs=4,
                clip_range=0.1, clip_range_vf=0.1, **shared)
model.learn(warm)
start = time.process_time()
model.learn(steps, reset_num_timesteps=False)
print((time.process_time() - start) / steps)
"""


def main() -> None:
    """The command line."""
    torch.set_num_threads(1)
    python = sys.argv[1] if len(sys.argv) > 1 else None
    figures = {name: compare(name, python) for name in ("a2c", "ppo")}
    print(json.dumps(figures, indent=1))
    results.write(results.PEERS if python else results.OURS, figures)


def compare(name: str, python: str | None) -> dict[str, float]:
    """Medians of milliseconds a step, and of the rounds' ratios."""
    rounds: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        one = {"ours": ours(name, "auto"), "ours_float32": ours(name, "float32")}
        if python:
            one["theirs"] = peer(name, python)
            one["ratio"] = one["theirs"] / one["ours"]
            one["ratio_float32"] = one["theirs"] / one["ours_float32"]
        rounds.append(one)
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def ours(name: str, precision: Precision) -> float:
    """Milliseconds of CPU a step."""
    configs: dict[str, Any] = {"a2c": a2c.Config, "ppo": ppo.Config}
    config = configs[name](steps=WARM[name] + STEPS[name], precision=precision)
    net = nature_cnn.Config()
    spec = Spec("atari/Breakout?screen=gray84", name, config, "nature_cnn", net, actions=4)
    encoder = pixels.Encoder(pixels.Config(), pixels.Features(), None)
    return milliseconds(make_policy(spec, encoder), WARM[name], STEPS[name])


def peer(name: str, python: str) -> float:
    """Milliseconds of CPU a step of Stable-Baselines3, in its own process."""
    command = [python, "-c", PEER, name, str(WARM[name]), str(STEPS[name])]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return 1e3 * float(run.stdout.split()[-1])


if __name__ == "__main__":
    main()
