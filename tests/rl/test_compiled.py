"""The compiled update gives the same numbers, and without a compiler updates are not compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
import torch

from rl.agent import Compilable
from rl.agents.rainbow import Agent
from rl.compiled import Compiled
from rl.policy import Policy
from tests.rl import fakes
from tests.rl.batches import random_batch
from tests.rl.test_off_policy import contents, stop_after, train

pytestmark = pytest.mark.slow


def agent(encoder: fakes.Fake) -> Agent:
    learner = fakes.policy(encoder=encoder).agent
    assert isinstance(learner, Agent)
    return learner


def test_a_compiled_update_is_the_plain_one() -> None:
    encoder = fakes.Tokens()
    plain, compiled = agent(encoder), agent(encoder)
    compiled.compile()
    for number in range(3):
        one, other = (each.update(random_batch(encoder, number)) for each in (plain, compiled))
        for key, value in one.items():
            torch.testing.assert_close(other[key], value, atol=1e-5, rtol=1e-4)
    for own, theirs in zip(compiled.policy.parameters(), plain.policy.parameters(), strict=True):
        torch.testing.assert_close(own, theirs, atol=2e-4, rtol=1e-3)


def is_compiled(agent: object) -> bool:
    return isinstance(getattr(agent, "_loss", None), Compiled)


def compiled_policy() -> Policy:
    policy = fakes.policy()
    agent = cast(Compilable, policy.agent)
    agent.compile()
    assert is_compiled(agent)
    return policy


def test_a_compiled_run_stopped_in_the_middle_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped twenty updates after the checkpoint of step 75, and resumed by a fresh agent."""
    monkeypatch.setattr("datasets.envs.make", fakes.make_chain)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(tmp_path / "whole", compiled_policy())
    (tmp_path / "stopped").mkdir()
    stop_after(95, tmp_path / "stopped", compiled_policy())
    train(tmp_path / "stopped", compiled_policy())
    torch.set_num_threads(threads)
    whole = contents(tmp_path / "whole")
    assert "weights-0000160.safetensors" in whole and contents(tmp_path / "stopped") == whole


def test_pixels_are_not_compiled_on_a_cpu() -> None:
    """It would be slower: the convolution's CPU form would be lost."""
    pixels = agent(fakes.Pixels())
    pixels.compile()
    assert not is_compiled(pixels)


WITHOUT = """
from tests.rl import fakes
from tests.rl.batches import random_batch
from tests.rl.test_compiled import agent
encoder = fakes.Tokens()
plain, compiled = agent(encoder), agent(encoder)
compiled.compile()
for number in range(2):
    losses = [each.update(random_batch(encoder, number))["loss"] for each in (plain, compiled)]
    assert losses[0] == losses[1]
"""


def test_without_a_compiler_updates_are_the_same_with_one_warning(tmp_path: Path) -> None:
    fresh = {"CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=Path(__file__).parents[2],
        env=os.environ | fresh | {"PYTHONPATH": ".", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (notice,) = (line for line in done.stderr.splitlines() if "updates are not compiled" in line)
    assert "/nowhere/g++" in notice
