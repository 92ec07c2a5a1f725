"""Faults of Meta-World: unstable simulations, dead processes, images that cannot be rendered."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from datasets import envs
from datasets.errors import FoveaError, UnstableError

STILL = np.zeros(4, np.float32)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes MUJOCO_LOG.TXT into the current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def reach() -> Any:
    """A task three steps into its first episode, without images."""
    env = envs.single("metaworld/reach", seed=0, index=0, images=False)
    env.reset()
    for _ in range(3):
        env.step(STILL)
    return env


@pytest.mark.parametrize("what", ["qpos", "qvel", "qacc", "ctrl"])
def test_an_unstable_simulation_ends_the_run(reach: Any, what: str, tmp_path: Path) -> None:
    """MuJoCo itself resets and raises nothing in Python."""
    if what == "qacc":  # is computed in every step, so it is the force that makes it infinite
        reach._task.data.qfrc_applied[0] = np.nan
    elif what == "ctrl":
        reach._task.do_simulation = partial(push, reach._task)
    else:
        getattr(reach._task.data, what)[0] = np.nan
    message = r"'metaworld/reach': the sim.* unstable at step 4 of an"
    with pytest.raises(UnstableError, match=message) as caught:
        reach.step(STILL)
    info = caught.value.info
    assert info["game_length"] == 4 and info["game_return"] > 0
    assert info["game_over"] and not info["game_success"]
    assert what.upper() in (tmp_path / "MUJOCO_LOG.TXT").read_text()
    reach._task.__dict__.pop("do_simulation", None)
    reach._task.data.qfrc_applied[:] = 0
    reach.reset()
    reach.step(STILL)


def push(task: Any, ctrl: object, n_frames: int) -> None:
    """Simulate like metaworld, with a force that is NaN."""
    task.data.ctrl[:] = np.nan
    mujoco.mj_step(task.model, task.data, nstep=n_frames)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_action_of_nan_is_refused(reach: Any, value: float) -> None:
    action = np.array([0, value, 0, 0], np.float32)
    with pytest.raises(FoveaError, match=r"'metaworld/reach': the action at step 4, .* not finite"):
        reach.step(action)
    assert reach._task.data.time > 0, "reset by MuJoCo"


def test_an_image_that_cannot_be_rendered_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise mujoco.FatalError("context lost")

    env = envs.single("metaworld/reach", seed=0, index=0)
    env.reset()
    monkeypatch.setattr(mujoco, "mjr_render", lost)
    with pytest.raises(FoveaError, match=r"'metaworld/reach': cannot be rendered \(context lost\)"):
        env.step(STILL)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["step", "reset", "call"])
def test_a_killed_process_is_an_error(method: str) -> None:
    """And the other processes are ended."""
    vector: Any = envs.make("metaworld/reach", num_envs=2, seed=0)
    vector.reset()
    os.kill(vector.processes[1].pid, signal.SIGKILL)
    if method == "call":  # where it is noticed depends on whether the process is quite gone
        vector.processes[1].join()
    words: dict[str, list[Any]] = {"step": [np.array([STILL] * 2)], "call": ["get_state"]}
    with pytest.raises(FoveaError, match=r"'metaworld/reach': one of its 2 proc.* died.*run it ag"):
        getattr(vector, method)(*words.get(method, []))
    assert not any(process.is_alive() for process in vector.processes)
    vector.close()


@pytest.mark.slow
def test_an_error_in_a_process_is_as_in_this_one() -> None:
    vector = envs.make("metaworld/reach", num_envs=2, seed=0, images=False)
    vector.reset()
    with pytest.raises(FoveaError, match=r"'metaworld/reach': the action at step 1, .* not finite"):
        vector.step(np.array([STILL, STILL * np.nan]))
    vector.close()
