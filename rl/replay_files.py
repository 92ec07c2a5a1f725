"""Replay's rows on disk: one file for the new rows of each checkpoint; files never change."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from datasets.errors import FoveaError
from datasets.sealed import remove_sealed, write_sealed

_FILE = re.compile(r"rows-(\d{9})-(\d{9})\.safetensors")
Kinds = Mapping[str, tuple[torch.dtype, torch.Size]]  # type and shape of each column's rows


def write_rows(folder: Path, rows: dict[str, Tensor], start: int, stop: int) -> None:
    """Write the rows number `start` to `stop`, counted from the first row ever added."""
    write_sealed(folder / f"rows-{start:09d}-{stop:09d}.safetensors", save(rows))


def drop_rows(folder: Path, before: int) -> None:
    """Delete the files whose rows are all older than number `before`."""
    for _, stop, path in _files(folder):
        if stop <= before:
            remove_sealed(path)


def read_rows(
    folder: Path, first: int, total: int, kinds: Kinds
) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
    """Start, stop and rows of the files with the rows `first` to `total`, in order.

    Files beyond `total` are deleted: they are of an unfinished checkpoint. Raises FoveaError if
    rows are missing, or are not of `kinds`.
    """
    for start, stop, path in _files(folder):
        if stop > total:
            remove_sealed(path)
        elif stop > first:
            if start > first:
                break
            yield start, stop, _read(path, stop - start, kinds)
            first = stop
    if first != total:
        raise FoveaError(
            f"{folder}: replay rows from {first} on are missing; delete the folder to start this "
            "seed again"
        )


def _read(path: Path, count: int, kinds: Kinds) -> dict[str, Tensor]:
    try:
        rows = load_file(path)
        for key, (dtype, shape) in kinds.items():
            if rows[key].dtype != dtype or rows[key].shape != (count, *shape):
                raise ValueError(f"{key} is {rows[key].dtype} {tuple(rows[key].shape)}")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise FoveaError(
            f"{path}: damaged replay segment ({error}); delete its folder to start this seed again"
        ) from error
    return rows


def _files(folder: Path) -> list[tuple[int, int, Path]]:
    """Start, stop and path of each file, in order."""
    matches = ((_FILE.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(m[1]), int(m[2]), path) for m, path in matches if m)
