"""One Lightning Trainer for every method, on a GPU if there is one. A run resumes from its last
sound checkpoint and ends in the same bytes as an uninterrupted one.

The order of the data and all noise are pure functions of (seed, epoch) and (seed, step). So only
the weights, the optimizer and the step number have to survive an interruption. A method is a module
whose `loss` gets a dict of columns, this process's share of the batch; its random numbers are those
of `schedule.noise(seed, step)`. Several processes (torchrun) share a batch of the same global size
and the same noise. Only this file and checkpoints.py import Lightning, whose import takes seconds:
loading an encoder does not need it.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.tensorboard import SummaryWriter

from datasets.errors import FoveaError
from pretrain.checkpoints import CHECKPOINTS, AtomicCheckpoints, last_sound, share_last_sound
from pretrain.modules.linear import fast_linear

CHECK_EVERY = 50  # steps between two checks of the losses, each of which waits for the GPU
TORCHRUN = "TORCHELASTIC_RUN_ID"  # set by torchrun in the environment of its processes
TORCHRUN_SETS = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
ALONE = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}
_ORDER = 0  # the stream of a seed's data order; its noise is stream 1 (schedule.py)

Precision = Literal["bf16-mixed", "16-mixed", "32-true"]
Rows = NDArray[np.int64]
Partners = Callable[[Rows, int], Rows]  # a step's rows and its number -> a second frame for each


class Method(Protocol):
    """A method of pretraining: an nn.Module with a loss and an optimizer."""

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """The mean loss of a batch: columns (B, ...), "step", and "share", a slice of the whole."""
        ...

    def optimizer(
        self, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The optimizer and its schedule, stepped after every one of `steps` updates."""
        ...


class Lit(L.LightningModule):
    """A method as a LightningModule."""

    def __init__(self, method: Method, steps: int) -> None:
        super().__init__()
        self.method, self.steps = cast(nn.Module, method), steps

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The method's loss."""
        with fast_linear(self.device, half=True):
            return cast(Method, self.method).loss(batch)

    def configure_optimizers(self) -> Any:
        """The method's optimizer; its rate is set at every step."""
        optimizer, schedule = cast(Method, self.method).optimizer(self.steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def total_steps(frames: int, *, batch_size: int, epochs: int) -> int:
    """The number of steps of a run: whole batches only, and at least one an epoch."""
    return epochs * max(1, frames // batch_size)


class Batches(Dataset[dict[str, Any]]):
    """Item `step` is that step's batch, tensors (B, ...), "step", "share"; shuffled each epoch.

    `rows` are the rows of the columns that an epoch visits, by default all; `partners` gives each
    of a batch's frames a second frame, whose image is the column "source".
    """

    def __init__(
        self,
        columns: Mapping[str, NDArray[Any]],
        batch_size: int,
        seed: int,
        share: slice,
        rows: Rows | None = None,
        partners: Partners | None = None,
    ) -> None:
        self._columns, self._seed, self._share = columns, seed, share
        self._rows, self._partners = rows, partners
        self._frames = len(next(iter(columns.values())) if rows is None else rows)
        self._batch_size = min(batch_size, self._frames)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __getitem__(self, step: int) -> dict[str, Any]:
        epoch, batch = divmod(step, self._frames // self._batch_size)
        if self._order[0] != epoch:
            rng = np.random.default_rng([self._seed, _ORDER, epoch])
            self._order = epoch, rng.permutation(self._frames)
        rows = self._order[1][batch * self._batch_size :][: self._batch_size]
        if self._rows is not None:
            rows = self._rows[rows]
        item: dict[str, Any] = {"step": step, "share": self._share}
        if self._partners is not None:  # sampled for the whole batch, of which this is a share
            source = self._partners(rows, step)[self._share]
            item["source"] = torch.from_numpy(self._columns["image"][source])
        rows = rows[self._share]
        return {k: torch.from_numpy(v[rows]) for k, v in self._columns.items()} | item


class StepsFrom(Sampler[int]):
    """Steps `start` to `steps`; its length is the whole run's, as Lightning expects."""

    def __init__(self, start: int, steps: int) -> None:
        self._start, self._steps = start, steps

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._start, self._steps))


class Watch(L.Callback):
    """Keeps the losses, stops where one is not finite, reports progress, saves checkpoints."""

    def __init__(
        self,
        steps: int,
        seed: int,
        folder: Path,
        every: int | None,
        seconds: float,
        progress: Callable[[int, int], None] | None,
        tensorboard: Path | None,
    ) -> None:
        self.losses = torch.zeros(steps)
        self._seed = seed
        self._folder, self._every, self._seconds = folder, every, seconds
        self._progress, self._tensorboard = progress, tensorboard
        self._writer: SummaryWriter | None = None
        self._last_check = 0  # step
        self._last_save = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """The losses so far, which the checkpoint stores."""
        return {"losses": self.losses.cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the losses of the interrupted run."""
        self.losses.copy_(state_dict["losses"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the losses on the device; `_check` copies them back."""
        self.losses = self.losses.to(pl_module.device)
        self._last_check = trainer.global_step
        if self._tensorboard is not None and trainer.is_global_zero:
            self._writer = SummaryWriter(str(self._tensorboard), purge_step=trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Store the loss; check and save at intervals."""
        step = trainer.global_step
        self.losses[batch["step"]] = outputs["loss"].detach()
        check = step % CHECK_EVERY == 0 or step == len(self.losses)
        if check or pl_module.device.type == "cpu":
            self._check(step)
        if self._due(trainer, step, check):
            self._check(step)
            trainer.save_checkpoint(self._folder / CHECKPOINTS.replace("*", f"{step:012d}"))
            self._last_save = time.monotonic()
        if self._progress is not None and trainer.is_global_zero:
            self._progress(step, len(self.losses))

    def _due(self, trainer: L.Trainer, step: int, check: bool) -> bool:
        if step == len(self.losses):
            return True
        if self._every is not None:
            return step % self._every == 0
        alone = trainer.world_size == 1
        late = time.monotonic() - self._last_save >= self._seconds
        # Processes save together: the first one's clock decides, and is read at intervals.
        return late if alone else check and bool(trainer.strategy.broadcast(late))

    def _check(self, step: int) -> None:
        if step == self._last_check:
            return
        new = self.losses[self._last_check : step].cpu()
        finite = new.isfinite()
        if not finite.all():
            bad = int(finite.logical_not().nonzero()[0])
            raise FoveaError(
                f"loss is {new[bad].item()} at step {self._last_check + bad + 1} with seed "
                f"{self._seed}: training stopped; lower the learning rate or try another seed"
            )
        if self._writer is not None and step % CHECK_EVERY == 0:
            self._writer.add_scalar("loss", float(new[-1]), step)
        self._last_check = step

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Average the losses over the processes."""
        self.losses = trainer.strategy.reduce(self.losses, reduce_op="mean").cpu()
        if self._writer is not None:
            self._writer.close()


def _group() -> tuple[int, int, int]:
    """This process's rank, the number of processes, and how many of them are on this machine:
    torchrun's, or 0, 1 and 1 without torchrun.

    Raises FoveaError if other programs' variables name more processes, which do not exist.
    """
    if TORCHRUN in os.environ:
        rank, processes, local = (int(os.environ[name]) for name in TORCHRUN_SETS)
        return rank, processes, local
    for name, alone in ALONE.items():
        value = os.environ.get(name, alone)
        if value != alone:
            raise FoveaError(f"{name}: {value}, but torchrun did not start this process; unset it")
    return 0, 1, 1


def fit(
    method: Method,
    columns: Mapping[str, NDArray[Any]],
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    folder: Path,
    checkpoint_every: int | None = None,
    checkpoint_seconds: float = 30.0,
    progress: Callable[[int, int], None] | None = None,
    tensorboard_dir: Path | None = None,
    clip_norm: float | None = None,
    rows: Rows | None = None,
    partners: Partners | None = None,
) -> NDArray[np.float32]:
    """Train `method` on `columns`, each (N, ...), or resume from the last checkpoint in `folder`.

    Returns the loss of every step of the whole run. `checkpoint_every` counts steps; without it a
    checkpoint is written every `checkpoint_seconds`. `progress` gets (steps done, steps in all).
    `clip_norm` bounds the gradient's norm; `rows` and `partners` are those of `Batches`.
    A damaged checkpoint is skipped with a note. Raises FoveaError naming the step if the loss is
    NaN or infinite, if a checkpoint is of another run, or if WORLD_SIZE is left over.
    """
    frames = len(next(iter(columns.values())) if rows is None else rows)
    steps = total_steps(frames, batch_size=batch_size, epochs=epochs)
    rank, processes, local = _group()
    share = slice(rank, None, processes)
    if min(batch_size, frames) % processes:
        raise FoveaError(f"batch_size: {batch_size}, must be divisible by {processes} processes")

    checkpoints = AtomicCheckpoints()
    if processes > 1:
        share_last_sound(folder, rank)
    start, checkpoint = last_sound(checkpoints, folder, steps)
    watch = Watch(
        steps, seed, folder, checkpoint_every, checkpoint_seconds, progress, tensorboard_dir
    )
    gpu = torch.cuda.is_available()
    half: Precision = "bf16-mixed" if gpu and torch.cuda.is_bf16_supported() else "16-mixed"
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer = L.Trainer(
            accelerator="gpu" if gpu else "cpu",
            devices=local,
            num_nodes=processes // local,
            strategy="ddp" if processes > 1 else "auto",
            precision=half if gpu else "32-true",
            max_steps=steps,
            max_epochs=1,  # one pass over all steps; the loader counts the data's epochs
            callbacks=[watch],
            # A single process ignores the variables of a batch system.
            plugins=[checkpoints] if processes > 1 else [checkpoints, LightningEnvironment()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            gradient_clip_val=clip_norm,
        )
        loader = DataLoader(
            Batches(columns, batch_size, seed, share, rows, partners),
            batch_size=None,
            sampler=StepsFrom(start, steps),
        )
        try:
            trainer.fit(Lit(method, steps), loader, ckpt_path=checkpoint)
        except SystemExit as stop:  # Lightning's, after Ctrl-C
            if isinstance(stop.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
    return watch.losses.numpy()
