"""Training from replay: a chain is solved, and a killed run ends in the same bytes."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from safetensors.torch import load_file
from torch import Tensor

from datasets.errors import FoveaError, UnstableError
from datasets.sealed import write_sealed
from pretrain.encoder import Obs
from rl import off_policy, play
from rl.agent import Batch
from rl.agents import rainbow
from rl.policy import Policy
from rl.replay import Replay
from rl.run import DONE, DivergedError, is_done
from tests.datasets.test_shards import flip
from tests.rl import fakes

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _chain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("datasets.envs.make", fakes.make_chain)
    monkeypatch.setattr("datasets.envs.single", fakes.single_chain)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order would be other bytes
    yield
    torch.set_num_threads(threads)


def train(folder: Path, policy: Policy, **settings: int) -> None:
    folder.mkdir(exist_ok=True)
    off_policy.train(
        policy,
        folder=folder,
        checkpoint_every=settings.get("checkpoint_every", 60),
        resume_every=settings.get("resume_every", 25),
        progress=fakes.ignore,
    )


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("[!.]*") if path.is_file()]  # digests beside them apart
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_chain_of_five_states_is_solved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.envs.make", partial(fakes.make_chain, slip=0.0))
    monkeypatch.setattr("datasets.envs.single", partial(fakes.single_chain, slip=0.0))
    config = replace(
        fakes.SMALL, steps=450, learn_start=200, replay_capacity=450, batch_size=16, stack=1,
        learning_rate=3e-3, hidden=32,
    )  # fmt: skip
    policy = fakes.policy(config)
    before = play.evaluate(policy, episodes=3, seed=9, epsilon=0.0, progress=fakes.ignore)
    train(tmp_path, policy, checkpoint_every=10_000, resume_every=10_000)
    after = play.evaluate(policy, episodes=3, seed=9, epsilon=0.0, progress=fakes.ignore)
    assert after == {"returns": [6.0] * 3, "lengths": [8] * 3}
    assert before != after


def test_a_seeds_folder_holds_weights_curve_and_metrics(tmp_path: Path) -> None:
    policy = fakes.policy()
    train(tmp_path, policy)
    assert sorted(contents(tmp_path)) == [
        "curve.csv",
        "metrics.json",
        "weights-0000060.safetensors",
        "weights-0000120.safetensors",
        "weights-0000160.safetensors",
    ]
    weights = load_file(tmp_path / "weights-0000160.safetensors")
    assert all(torch.equal(weights[k], v) for k, v in policy.agent.policy.state_dict().items())
    rows = list(csv.DictReader((tmp_path / "curve.csv").open()))
    assert list(rows[0]) == ["step", "return", "length"]
    assert {float(row["return"]) for row in rows} <= {0.0, 3.0, 6.0}  # raw, of whole games
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["updates"] == 120
    assert metrics["games"] == len(rows)


def test_frames_are_encoded_once_and_rewards_reach_replay_as_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = fakes.Tokens()
    added: list[tuple[float, bool, bool, bool]] = []
    real = Replay.add

    def add(self: Replay, obs: Obs, action: int, reward: float, **ends: Any) -> None:
        added.append((reward, ends["terminated"], ends["truncated"], ends["final"] is not None))
        real(self, obs, action, reward, **ends)

    monkeypatch.setattr(Replay, "add", add)
    policy = fakes.policy(replace(fakes.SMALL, steps=300), encoder)
    encoder.frames = 0
    train(tmp_path, policy)
    truncated = sum(cut for _, _, cut, _ in added)
    assert encoder.frames == 1 + 300 + truncated  # the first, one a step, true last ones
    assert len(added) == 300
    assert {reward for reward, *_ in added} == {0.0, 1.0}
    assert all(final == cut for _, _, cut, final in added)
    games = (tmp_path / "curve.csv").read_text().count("\n") - 1
    assert sum(over for _, over, _, _ in added) + truncated > games  # lost lives end episodes too


def test_warm_up_is_uniform_and_learning_starts_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(fakes.SMALL, steps=400, learn_start=300, update_every=4)
    policy = fakes.policy(config)
    taken: list[int] = []
    real = fakes.Chain.step

    def step(self: fakes.Chain, action: np.int64) -> Any:
        taken.append(int(action))
        return real(self, action)

    monkeypatch.setattr(fakes.Chain, "step", step)
    train(tmp_path, policy)
    counts = np.bincount(taken[:300], minlength=3)
    assert counts.min() > 70
    assert getattr(policy.agent, "updates", None) == 25


class StopError(Exception):
    """Raised by a test in place of a kill."""


def stop_after(at: int, folder: Path, policy: Policy | None = None) -> None:
    """Train until the step `at`, with a checkpoint every 25."""
    done = 0

    def stop(more: int) -> None:
        nonlocal done
        done += more
        if done == at:
            raise StopError

    policy = policy or fakes.policy()
    with pytest.raises(StopError):
        off_policy.train(policy, folder=folder, checkpoint_every=60, resume_every=25, progress=stop)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an uninterrupted run with a single checkpoint."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.envs.make", fakes.make_chain)
        torch.set_num_threads(1)
        train(folder, fakes.policy(), resume_every=90)
    return contents(folder)


@pytest.mark.parametrize("at", [1, 25, 59, 61, 159, 160])
def test_a_run_stopped_after_any_step_ends_in_the_same_bytes(
    at: int, whole: dict[str, bytes], tmp_path: Path
) -> None:
    stop_after(at, tmp_path)
    train(tmp_path, fakes.policy())
    assert contents(tmp_path) == whole


KILLED = """
import sys
from pathlib import Path
import torch
from datasets import envs
from pretrain.encoder import Obs
from rl import off_policy, play
from rl.agent import Batch
from rl.agents import rainbow
from tests.rl import fakes
torch.set_num_threads(1)
envs.make = fakes.make_chain
folder = Path(sys.argv[1])
every = dict(checkpoint_every=60, resume_every=7)
print("ready", flush=True)
off_policy.train(fakes.policy(), folder=folder, progress=lambda more: None, **every)
"""


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(
    whole: dict[str, bytes], tmp_path: Path
) -> None:
    draw, kills = random.Random(0), 0
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    while True:
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            if kills < 4:
                time.sleep(draw.uniform(0.1, 0.5))
                process.send_signal(signal.SIGKILL)
            process.wait()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
    assert kills >= 1
    assert contents(tmp_path) == whole


def test_a_finished_seed_is_not_trained_again(tmp_path: Path) -> None:
    train(tmp_path, fakes.policy())
    before = contents(tmp_path)
    counts: list[int] = []
    off_policy.train(fakes.policy(), folder=tmp_path, checkpoint_every=60, progress=counts.append)
    assert contents(tmp_path) == before
    assert counts == [160]


def test_a_loss_of_nan_ends_the_seed_with_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rainbow.Agent.update

    def update(self: rainbow.Agent, batch: Batch) -> dict[str, Tensor]:
        result = real(self, batch)
        return result | {"loss": result["loss"] * (torch.nan if self.updates == 30 else 1)}

    monkeypatch.setattr(rainbow.Agent, "update", update)
    with pytest.raises(DivergedError, match=r"seed 3.*step 70") as caught:
        train(tmp_path, fakes.policy(seed=3))
    assert caught.value.step == 70
    assert sorted(contents(tmp_path)) == ["curve.csv", "failed.json", "weights-0000060.safetensors"]


def test_features_of_nan_end_the_seed_with_its_step(tmp_path: Path) -> None:
    class Broken(fakes.Tokens):
        def forward(self, image: Tensor) -> Obs:
            features = super().forward(image)
            return features | {"x": features["x"] * (torch.nan if self.frames == 30 else 1)}

    # The first frame, one a step, and three true last ones.
    with pytest.raises(DivergedError, match=r"seed 3.*features.*step 26.*pretrain"):
        train(tmp_path, fakes.policy(seed=3, encoder=Broken()))
    assert contents(tmp_path).keys() == {"curve.csv", "failed.json"}


def test_an_action_of_nan_ends_the_seed_with_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the environment's step."""
    real = rainbow.Agent.act

    def act(self: rainbow.Agent, *args: Any, **words: Any) -> tuple[Tensor, Any, Any]:
        action, state, extra = real(self, *args, **words)
        return action * (torch.nan if self.updates == 30 else 1), state, extra

    monkeypatch.setattr(rainbow.Agent, "act", act)
    with pytest.raises(DivergedError, match=r"seed 3: the action is not finite at step 70; lower"):
        train(tmp_path, fakes.policy(seed=3))
    assert sorted(contents(tmp_path)) == ["curve.csv", "failed.json", "weights-0000060.safetensors"]


def test_a_simulation_that_becomes_unstable_ends_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would become unstable at every attempt, so an error would stop all seeds."""
    real, steps = SyncVectorEnv.step, iter(range(1_000))

    def step(self: SyncVectorEnv, actions: Any) -> Any:
        if next(steps) == 69:
            raise UnstableError("unstable")
        return real(self, actions)

    monkeypatch.setattr(SyncVectorEnv, "step", step)
    with pytest.raises(DivergedError, match=r"seed 3: the simulation's state is not finite.* 69"):
        train(tmp_path, fakes.policy(seed=3))
    assert sorted(contents(tmp_path)) == ["curve.csv", "failed.json", "weights-0000060.safetensors"]


def change_of(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    """A change of a checkpoint's content."""

    def changed(good: bytes) -> bytes:
        state = torch.load(io.BytesIO(good), weights_only=True)
        buffer = io.BytesIO()
        torch.save(change(state), buffer)
        return buffer.getvalue()

    return changed


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: b"",
        lambda good: b"not a checkpoint",
        lambda good: b"PK\x03\x04 not a checkpoint",
        lambda good: good[: len(good) // 2],
        change_of(lambda state: [1, 2]),
        change_of(lambda state: state | {"episodes": 0}),
        change_of(lambda state: {k: v for k, v in state.items() if k != "environment"}),
        change_of(lambda state: state | {"agent": {"updates": 1}}),
        change_of(lambda state: state | {"replay": {}}),
        change_of(lambda state: state | {"random": {"bit_generator": "another"}}),
    ],
    ids=["empty", "garbage", "zip", "half", "list", "type", "entry", "agent", "replay", "random"],
)
def test_a_damaged_checkpoint_is_named(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    stop_after(75, tmp_path)
    path = max((tmp_path / "resume").glob("state-*.pt"))
    write_sealed(path, damage(path.read_bytes()))
    with pytest.raises(FoveaError, match=r"state-0+\d+\.pt: damaged checkpoint \(\w+\); delete"):
        train(tmp_path, fakes.policy())


@pytest.mark.parametrize(
    ("pattern", "number", "first"),
    [("state-*", 1, 50), ("state-*", 2, 0), ("rows-*", 1, 0), ("weights-*", 1, 75)],
    ids=["last", "both", "rows", "weights"],
)
def test_a_checkpoint_with_a_flipped_bit_is_not_used(
    tmp_path: Path, whole: dict[str, bytes], capfd: pytest.CaptureFixture[str],
    pattern: str, number: int, first: int,
) -> None:  # fmt: skip
    """The checkpoint before it is used, or none; a line is printed, and the seed ends in the same
    bytes.
    """
    stop_after(80, tmp_path)
    folder = tmp_path if pattern == "weights-*" else tmp_path / "resume"
    for path in sorted(folder.glob(pattern))[-number:]:
        path.write_bytes(flip(path.read_bytes(), 8 * 1000))
    steps: list[int] = []
    off_policy.train(
        fakes.policy(), folder=tmp_path, checkpoint_every=60, resume_every=25, progress=steps.append
    )
    assert steps[0] == first
    notes = [line for line in capfd.readouterr().err.splitlines() if "note: " in line]
    assert len(notes) == (0 if pattern == "weights-*" else number)
    assert is_done(tmp_path, DONE) == (pattern != "weights-*")
    if pattern == "weights-*":
        assert "so the seed is trained again" in capfd.readouterr().err
        assert list(tmp_path.iterdir()) == []
    else:
        assert contents(tmp_path) == whole


def test_missing_rows_are_reported(tmp_path: Path) -> None:
    stop_after(75, tmp_path)
    for path in (tmp_path / "resume").glob("*.safetensors"):
        path.unlink()
    with pytest.raises(FoveaError, match=r"resume: replay rows from 0 on are missing"):
        train(tmp_path, fakes.policy())


def test_an_encoder_for_another_size_is_refused(tmp_path: Path) -> None:
    class Larger(fakes.Pixels):
        image_shape = (3, 96, 96)

    with pytest.raises(FoveaError, match=r"96.*fake/Chain.*25"):
        train(tmp_path, fakes.policy(encoder=Larger()))


def test_pixels_train_like_tokens(tmp_path: Path) -> None:
    train(tmp_path, fakes.policy(replace(fakes.SMALL, steps=60), fakes.Pixels()))
    assert (tmp_path / "metrics.json").exists()


def test_logs_are_for_tensorboard(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    off_policy.train(
        fakes.policy(), folder=tmp_path / "run", checkpoint_every=60, progress=fakes.ignore,
        logs=tmp_path / "logs",
    )  # fmt: skip
    assert [path.name.startswith("events.out") for path in (tmp_path / "logs").iterdir()] == [True]
