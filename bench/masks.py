"""What a mask costs A2C on Breakout: CPU time a step with each kind, beside none.

The network is the mask's paper's, 32 channels in the third convolution, everywhere. One thread,
interleaved rounds, emulator included; the first steps of each run are not counted.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from pretrain.encoder import Encoder
from pretrain.encoders import attention, pixels
from rl import on_policy
from rl.agents import a2c
from rl.nets import masked_cnn, nature_cnn
from rl.policy import Policy, Spec, make_policy

ROUNDS = 5
WARM, STEPS = 1_600, 4_000  # jointly learned, a mask takes its first step after 1,360
ENV = "atari/Breakout?screen=gray84"
NETS: dict[str, Any] = {
    "plain": nature_cnn.Config(channels=(32, 64, 32)),
    "frozen": masked_cnn.Config(),
    "top_down": masked_cnn.Config(mask="top_down"),
    "joint": masked_cnn.Config(mask="joint"),
}


def run() -> dict[str, Any]:
    """Medians of milliseconds a step, and of how many steps a second there are to those without."""
    torch.set_num_threads(1)
    rounds = []
    for _ in range(ROUNDS):
        times = {name: milliseconds(masked_policy(name), WARM, STEPS) for name in NETS}
        ratios = {f"{name}_ratio": times["plain"] / times[name] for name in NETS}
        rounds.append({f"{name}_ms": value for name, value in times.items()} | ratios)
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def masked_policy(name: str) -> Policy:
    """An untrained policy with one of NETS."""
    encoder: Encoder = pixels.Encoder(pixels.Config(), pixels.Features(), None)
    if name == "frozen":
        encoder = attention.Pretraining(attention.Config(), (1, 84, 84)).encoder()
    config, net = a2c.Config(steps=WARM + STEPS), NETS[name]
    return make_policy(Spec(ENV, "a2c", config, type(net).__module__[8:], net, 4), encoder)


def milliseconds(policy: Policy, warm: int, steps: int) -> float:
    """Milliseconds of CPU a step of a whole training, after `warm` of its steps."""
    done, marks = 0, dict[int, float]()

    def progress(more: int) -> None:
        nonlocal done
        done += more
        marks[done] = time.process_time()

    with tempfile.TemporaryDirectory() as folder:
        on_policy.train(
            policy, folder=Path(folder), checkpoint_every=warm + steps, progress=progress
        )
    return 1e3 * (marks[warm + steps] - marks[warm]) / steps


if __name__ == "__main__":
    print(run())
