"""Training: the same bytes after any interruption, the same steps for any number of processes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import random
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from datasets.errors import FoveaError
from datasets.sealed import write_sealed
from pretrain import schedule, trainer
from pretrain.checkpoints import AtomicCheckpoints
from pretrain.encoders import mae
from pretrain.modules import linear
from tests.datasets.test_shards import flip
from tests.pretrain import training_run

CONFIG = mae.Config(
    patch=4, dim=8, depth=1, heads=2, decoder_dim=8, decoder_depth=1, decoder_heads=2, batch_size=8
)


def images(count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)


def train(
    folder: Path,
    *,
    epochs: int = 2,
    checkpoint_every: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    tensorboard_dir: Path | None = None,
) -> tuple[mae.Pretraining, np.ndarray]:
    method = mae.Pretraining(replace(CONFIG, epochs=epochs), (3, 16, 16))
    losses = trainer.fit(
        method,
        {"image": images()},
        batch_size=8,
        epochs=epochs,
        seed=0,
        folder=folder,
        checkpoint_every=checkpoint_every,
        progress=progress,
        tensorboard_dir=tensorboard_dir,
    )
    return method, losses


def test_schedule_against_the_formula() -> None:
    rates = [schedule.half_cosine(s, steps=100, warmup=10) for s in range(101)]
    assert rates[0] == 0 and rates[5] == 0.5 and rates[10] == 1
    assert rates[55] == pytest.approx(0.5) and rates[100] == pytest.approx(0, abs=1e-12)
    assert schedule.half_cosine(4, steps=4, warmup=4) == 1  # all of it warm-up: no division by zero


def test_each_epoch_has_whole_batches_in_a_new_order() -> None:
    columns = {"image": np.arange(20), "saliency": np.arange(20) + 100}
    batches = trainer.Batches(columns, 6, 1, slice(0, None, 1))
    epochs = [torch.cat([batches[s]["image"] for s in range(3 * e, 3 * e + 3)]) for e in (0, 1)]
    for rows in epochs:
        assert len(set(rows.tolist())) == 18
    assert not torch.equal(*epochs)
    again = trainer.Batches(columns, 6, 1, slice(0, None, 1))[4]  # without the steps before it
    assert torch.equal(again["image"], batches[4]["image"])
    assert torch.equal(again["saliency"], again["image"] + 100)


def test_processes_share_a_batch() -> None:
    columns = {"image": np.arange(20)}
    whole = trainer.Batches(columns, 6, 1, slice(0, None, 1))[0]["image"]
    parts = [trainer.Batches(columns, 6, 1, slice(r, None, 2))[0]["image"] for r in (0, 1)]
    assert torch.equal(torch.stack(parts, dim=1).flatten(), whole)


def test_lightning_step_equals_a_plain_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same data order, masks, loss, AdamW groups and rates written out by hand, in float32."""
    monkeypatch.setattr(linear, "has_bfloat16", lambda: False)
    method, losses = train(tmp_path)
    plain = mae.Pretraining(CONFIG, (3, 16, 16)).model
    decayed = [p for p in plain.parameters() if p.ndim > 1]
    bare = [p for p in plain.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": bare, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95))
    frames, expected = images(), []
    for step in range(10):
        order = np.random.default_rng([0, 0, step // 5]).permutation(40)
        rows = order[step % 5 * 8 : step % 5 * 8 + 8]
        x = torch.from_numpy(frames[rows]).permute(0, 3, 1, 2).float() / 255
        patches = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 4, 5, 1).reshape(8, 16, 48)
        draws = torch.from_numpy(np.random.default_rng([0, 1, step]).random((8, 16), np.float32))
        reconstruction = plain(patches, draws.argsort(1)[:, :4])
        mean, std = patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + 1e-6).sqrt()
        loss = ((reconstruction - (patches - mean) / std) ** 2).mean()
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * 8 / 256 * schedule.half_cosine(step, steps=10, warmup=10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for own, other in zip(method.model.parameters(), plain.parameters(), strict=True):
        # Ten steps move a parameter by 1.4e-4; a key's bias has no gradient but rounding's.
        torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-5)


def test_training_may_multiply_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[bool] = []

    def entered(device: torch.device, *, half: bool) -> contextlib.AbstractContextManager[None]:
        options.append(half)
        return contextlib.nullcontext()

    monkeypatch.setattr(trainer, "fast_linear", entered)
    train(tmp_path, epochs=1)
    assert options == [True] * 5


def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop_at(step: int) -> Callable[[int, int], None]:
        def progress(done: int, steps: int) -> None:
            assert steps == 10
            if done == step:
                raise StoppedError

        return progress

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole, losses = train(tmp_path / "a")
    for step in (2, 5, 8):  # off and on an epoch's end, off and on a checkpoint
        with pytest.raises(StoppedError):
            train(tmp_path / "b", checkpoint_every=2, progress=stop_at(step))
    resumed, again = train(tmp_path / "b", checkpoint_every=2)
    assert np.array_equal(losses, again)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_ctrl_c_stays_ctrl_c(tmp_path: Path) -> None:
    def press(step: int, steps: int) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, progress=press)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first, losses = train(tmp_path)
    done: list[int] = []
    second, again = train(tmp_path, progress=lambda step, steps: done.append(step))
    assert done == [] and np.array_equal(losses, again)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])


def test_nan_loss_names_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = mae.Pretraining.loss

    def poisoned(self: mae.Pretraining, batch: dict[str, object]) -> Tensor:
        loss = plain(self, batch)
        return loss * float("nan") if batch["step"] == 3 else loss

    monkeypatch.setattr(mae.Pretraining, "loss", poisoned)
    with pytest.raises(FoveaError, match="loss is nan at step 4 with seed 0"):
        train(tmp_path, checkpoint_every=1)
    saved = AtomicCheckpoints().load_checkpoint(max(tmp_path.glob("step-*.ckpt")))
    assert saved["global_step"] == 3  # the last before it


def test_a_checkpoint_may_fall_on_a_logged_step(tmp_path: Path) -> None:
    steps = trainer.total_steps(len(images()), batch_size=8, epochs=1)
    epochs = -(-trainer.CHECK_EVERY // steps)
    _, losses = train(tmp_path, epochs=epochs, checkpoint_every=5, tensorboard_dir=tmp_path / "tb")
    assert len(losses) >= trainer.CHECK_EVERY
    assert list((tmp_path / "tb").glob("events*"))


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    with pytest.raises(
        FoveaError, match=r"step-0{11}5.ckpt: belongs to a run of 5 steps, this one has 10"
    ):
        train(tmp_path, epochs=2)


def test_a_damaged_checkpoint_is_skipped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Training continues from the one before it, or starts again; the result is the same, and a
    line is printed.
    """
    whole, losses = train(tmp_path, checkpoint_every=4)
    checkpoints = sorted(tmp_path.glob("step-*.ckpt"))
    assert [path.stem for path in checkpoints] == [f"step-{n:012d}" for n in (8, 10)]
    assert capfd.readouterr().err == ""
    steps: list[int] = []
    for first in (9, 1):
        for path in checkpoints if first == 1 else checkpoints[1:]:
            path.write_bytes(flip(path.read_bytes(), 8 * 2000))
        resumed, again = train(
            tmp_path, checkpoint_every=4, progress=lambda step, _: steps.append(step)
        )
        assert steps == list(range(first, 11)) and np.array_equal(losses, again)
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, resumed.state_dict()[name]), name
        messages = capfd.readouterr().err.splitlines()
        assert len(messages) == (1 if first == 9 else 2)
        assert all("note: " in line and "does not match its SHA-256" in line for line in messages)
        steps.clear()


def test_checkpoints_never_run_code(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"global_step": 1, "x": Path("here")}, buffer)
    write_sealed(tmp_path / "step-000000000001.ckpt", buffer.getvalue())
    with pytest.raises(FoveaError, match="not readable as a checkpoint"):
        train(tmp_path)


def test_nothing_on_stdout_and_tensorboard_where_asked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, tensorboard_dir=tmp_path / "logs")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
    assert [p.name.split(".")[0] for p in (tmp_path / "logs").iterdir()] == ["events"]


@pytest.fixture(scope="module")
def start() -> Callable[..., BaseProcess]:
    """Starts `training_run.main` in a process of its own, forked from one that has imported it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([training_run.__name__])

    def start(folder: Path, environment: dict[str, str] | None = None) -> BaseProcess:
        folder.mkdir(exist_ok=True)
        process = context.Process(target=training_run.main, args=(folder, environment or {}))
        process.start()
        return process

    return start


def ended_well(process: BaseProcess) -> bool:
    process.join(120)
    return process.exitcode == 0


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_killed_at_random_points_ends_in_the_same_bytes(
    tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert ended_well(start(whole))
    steps = (whole / "steps").stat().st_size
    log, at = killed / "steps", 0
    for _ in range(3):
        at += random.randint(10, steps // 4)  # steps done, those done twice counted twice
        process = start(killed)
        while process.is_alive() and (not log.exists() or log.stat().st_size < at):
            time.sleep(0.001)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        at = log.stat().st_size
    assert ended_well(start(killed))
    for name in ("model.safetensors", "config.json", "losses.npy"):
        assert digest(whole / name) == digest(killed / name), f"{name}, last killed at {at}"
    assert log.stat().st_size - at < steps  # it went on, it did not start again


@pytest.mark.parametrize("name", trainer.ALONE)
def test_left_over_variables_of_a_group_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "2")
    with pytest.raises(FoveaError, match=f"{name}: 2, but torchrun did not start this process"):
        train(tmp_path)


def test_a_batch_system_s_variables_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning would ask Slurm for the other processes."""
    _, alone = train(tmp_path)
    for name, value in {"NTASKS": "4", "PROCID": "1", "JOB_NAME": "train", "NNODES": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    (tmp_path / "others").mkdir()
    _, among_others = train(tmp_path / "others")
    np.testing.assert_array_equal(alone, among_others)


@pytest.mark.slow
def test_two_machines_train_as_one_process_and_go_on_from_the_firsts_checkpoint(
    tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    """With the environment variables of torchrun; gloo, on CPU. The folders share nothing."""
    one, two, other = tmp_path / "one", tmp_path / "two", tmp_path / "other"
    assert ended_well(start(one))
    begun = start(two)
    log = two / "steps"
    while not log.exists() or log.stat().st_size < 30:
        time.sleep(0.001)
    begun.kill()
    begun.join()
    before = log.stat().st_size
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    shared_by = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "test"}
    shared_by |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": "0"}
    processes = [
        start(folder, shared_by | {"RANK": rank, "GROUP_RANK": rank})
        for rank, folder in (("0", two), ("1", other))
    ]
    assert all([ended_well(process) for process in processes])
    steps = (one / "steps").stat().st_size
    assert 0 < log.stat().st_size - before < steps - 20  # it went on
    alone, shared = (load_file(f / "model.safetensors") for f in (one, two))
    for name, tensor in alone.items():
        torch.testing.assert_close(tensor, shared[name], atol=1e-5, rtol=1e-4)
    losses = [np.load(f / "losses.npy", allow_pickle=False) for f in (one, two)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert not (other / "model.safetensors").exists()
