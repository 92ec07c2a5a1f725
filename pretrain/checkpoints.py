"""Checkpoints of a training run: written atomically, and read without running code."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from torch.distributed.rendezvous import rendezvous

from datasets.errors import FoveaError
from datasets.sealed import DamagedError, is_sound, read_sealed, remove_sealed, write_sealed

CHECKPOINTS = "step-*.ckpt"  # sealed; two are kept, in case the last is damaged


class AtomicCheckpoints(CheckpointIO):
    """Checkpoints that are written atomically and read without unpickling code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write the checkpoint atomically; delete all but this one and the one before it."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_sealed(Path(path), buffer.getvalue())
        for older in sorted(Path(path).parent.glob(CHECKPOINTS))[:-2]:
            remove_sealed(older)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read tensors and plain values.

        Raises DamagedError where the file does not match its digest, FoveaError where it holds
        anything else.
        """
        data = io.BytesIO(read_sealed(Path(path)))
        try:
            checkpoint: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
        except (
            Exception
        ) as error:  # torch raises anything here: KeyError, RuntimeError, UnpicklingError
            raise FoveaError(
                f"{path}: not readable as a checkpoint ({type(error).__name__}); "
                "delete it to start this training again"
            ) from error
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Delete the file if it exists."""
        remove_sealed(Path(path))


def last_sound(checkpoints: AtomicCheckpoints, folder: Path, steps: int) -> tuple[int, Path | None]:
    """The step to resume from, and the newest sound checkpoint; 0 and None without one."""
    for path in sorted(folder.glob(CHECKPOINTS), reverse=True):
        try:
            return _step_of(checkpoints.load_checkpoint(path), steps, path), path
        except DamagedError as error:
            print(f"note: {error}; trying the one before it", file=sys.stderr, flush=True)
    return 0, None


def share_last_sound(folder: Path, rank: int) -> None:
    """Give every process of torchrun the last sound checkpoint of the first, and no later one.

    Only the first writes checkpoints, and the others may be on machines without its files.
    """
    store, _, processes = next(rendezvous("env://"))
    if rank == 0:
        path = next(filter(is_sound, sorted(folder.glob(CHECKPOINTS), reverse=True)), None)
        store.set("checkpoint", path.name.encode() + b"\0" + read_sealed(path) if path else b"\0")
        store.wait([f"checkpoint-{other}" for other in range(1, processes)])  # the store is here
        return
    name, _, data = store.get("checkpoint").partition(b"\0")
    for own in folder.glob(CHECKPOINTS):
        if own.name > name.decode():
            remove_sealed(own)
    if name and not is_sound(folder / name.decode()):
        write_sealed(folder / name.decode(), data)
    store.set(f"checkpoint-{rank}", b"")


def _step_of(checkpoint: dict[str, Any], steps: int, path: Path) -> int:
    losses = checkpoint.get("callbacks", {}).get("Watch", {}).get("losses", torch.empty(0))
    if len(losses) != steps:
        raise FoveaError(
            f"{path}: belongs to a run of {len(losses)} steps, this one has {steps}; "
            "delete it to start again"
        )
    return int(checkpoint["global_step"])
