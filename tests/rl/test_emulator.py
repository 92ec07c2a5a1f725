"""Training on the real emulator, stopped and resumed, emulator states included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datasets import envs
from pretrain.encoder import Encoder
from pretrain.encoders import mae, pixels
from rl import off_policy
from rl.policy import Policy, action_count
from tests.rl import fakes
from tests.rl.test_off_policy import StopError, contents

WORD = "atari/Breakout"
SHAPE = (3, 96, 96)
STEPS = 400  # some three lives
SMALL = mae.Config(
    patch=16, dim=16, depth=1, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
)


def policy(kind: str) -> Policy:
    """A fresh small policy, on an untrained autoencoder's tokens or on pixels."""
    encoder: Encoder = pixels.Encoder(pixels.Config(), pixels.Features(), SHAPE)
    if kind == "mae":
        encoder = mae.Pretraining(SMALL, SHAPE).encoder(mae.Features())
    config = replace(fakes.SMALL, steps=STEPS, update_every=4)
    return fakes.policy(config, encoder, env=WORD, actions=action_count(envs.action_space(WORD)))


def train(policy: Policy, folder: Path, *, until: int = -1, resume_every: int = 40) -> None:
    """To the end, or to the step at which a test stops it."""
    step = 0

    def progress(more: int) -> None:
        nonlocal step
        step += more
        if step == until:
            raise StopError

    off_policy.train(
        policy, folder=folder, checkpoint_every=150, resume_every=resume_every, progress=progress
    )


@pytest.mark.parametrize("kind", ["mae", "pixels"])
def test_a_stopped_training_ends_in_the_same_bytes(kind: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    train(policy(kind), whole, resume_every=10 * STEPS)
    for until in (95, 290):  # in the second life and in a later game
        with pytest.raises(StopError):
            train(policy(kind), parts, until=until)
        state = torch.load(max((parts / "resume").glob("state-*.pt")), weights_only=True)
        assert state["step"] == until // 40 * 40
    train(policy(kind), parts)
    assert contents(parts) == contents(whole)
    assert contents(whole)["curve.csv"].count(b"\n") > 2  # whole games were played
