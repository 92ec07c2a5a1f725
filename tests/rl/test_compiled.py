"""The compiled update gives the plain one's numbers, alone, as several seeds, without compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
import torch

from rl.agent import Compilable
from rl.play import Policy
from rl.seeds import Seeds
from tests.rl import fakes
from tests.rl.test_loops import contents, stop_after, train
from tests.rl.test_seeds import agent, assert_alike, batch

pytestmark = pytest.mark.slow


def test_a_compiled_update_is_the_plain_one() -> None:
    encoder = fakes.Tokens()
    plain, compiled = agent(0, encoder), agent(0, encoder)
    compiled.compile()
    for number in range(3):
        one, other = (each.update(batch(encoder, number)) for each in (plain, compiled))
        for key, value in one.items():
            torch.testing.assert_close(other[key], value, atol=1e-5, rtol=1e-4)
    assert_alike(plain, compiled)


def compiled_policy() -> Policy:
    policy = fakes.policy()
    agent = cast(Compilable, policy.agent)
    agent.compile()
    assert getattr(agent, "compiled", False)
    return policy


def test_a_compiled_run_stopped_in_the_middle_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped twenty updates after the checkpoint of step 75, and gone on by a fresh agent."""
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


def test_compiled_seeds_are_the_plain_ones() -> None:
    encoder = fakes.Tokens()
    plain, joined = ([agent(seed, encoder) for seed in (0, 1)] for _ in range(2))
    joined[0].compile()
    together = Seeds(joined)
    for number in range(3):
        batches = [batch(encoder, 10 * number + seed) for seed in (0, 1)]
        together.update(batches)
        for one, own in zip(plain, batches, strict=True):
            one.update(own)
    for one, other in zip(plain, joined, strict=True):
        assert_alike(one, other)


def test_pixels_are_not_compiled_on_a_cpu() -> None:
    """It would take longer: the convolution's own form for a CPU is lost."""
    pixels = agent(0, fakes.Pixels())
    pixels.compile()
    assert not pixels.compiled


WITHOUT = """
from tests.rl import fakes
from tests.rl.test_seeds import agent, batch
encoder = fakes.Tokens()
plain, compiled = agent(0, encoder), agent(0, encoder)
compiled.compile()
for number in range(2):
    losses = [each.update(batch(encoder, number))["loss"] for each in (plain, compiled)]
    assert losses[0] == losses[1]
"""


def test_without_a_compiler_updates_are_as_before_and_it_is_said_once(tmp_path: Path) -> None:
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
