"""Remembered errors in files, so that seeds side by side and later runs share one another's.

Each process appends to a file of its own and reads those of all others, one block a frame: the
contents of patches that the file has not shown before, by the writer's numbers, and errors under
their centre and nine numbers. What is read is checked: a block by its checksum; a file, before
anything of it is used, by computing some of its errors again, which must agree bit by bit. So
files of another machine, whose sums round otherwise, are left alone, as are torn ends and whatever
else was done to them. Weights are told apart by the folder, which `stamp` names.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.layers.attention import Attention

from pretrain import error_map, vit
from pretrain.vit import MaskedViT

LIMIT = 2 * 2**30  # bytes a folder; of more, the oldest files go when it is next opened
SUFFIX = ".errors"
MAGIC = b"fovea-errors/1\n"
HEAD = struct.Struct("<II16s")  # patches, errors, checksum


@dataclass(frozen=True)
class Block:
    """What one frame had that was new, as a file holds it.

    Attributes:
        contents: bytes of the patches that the file shows first here, (P, bytes of a patch) uint8.
        keys: centre and nine patches of each error, (M, 10) int32; patches are numbered from 0 in
            the order in which the file shows them.
        errors: (M,) float32.
    """

    contents: NDArray[np.uint8]
    keys: NDArray[np.int32]
    errors: NDArray[np.float32]

    def pack(self) -> bytes:
        """Its bytes."""
        parts = (self.contents, self.keys, self.errors)
        payload = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
        return HEAD.pack(len(self.contents), len(self.errors), _checksum(payload)) + payload


def stamp(model: MaskedViT) -> str:
    """Sixteen hex digits over weights, code, versions, threads and the processor's instructions."""
    found = hashlib.sha256()
    heads = [part.num_heads for part in model.modules() if isinstance(part, Attention)]
    found.update(f"{model.image_shape} {model.patch} {heads}".encode())
    for name, weight in model.state_dict().items():
        found.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        found.update(weight.cpu().contiguous().numpy().tobytes())
    for source in (error_map.__file__, vit.__file__):
        found.update(Path(source).read_bytes())
    capability = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()  # by which sums are split
    found.update(f"{torch.__version__} {timm.__version__} {capability} {threads}".encode())
    return found.hexdigest()[:16]


class ErrorLog:
    """This process's file in a folder, and the others' as far as they were read.

    Attributes:
        nbytes: what all files took when last looked at, and what was appended since. Nothing is
            appended beyond `limit`.
    """

    def __init__(self, folder: Path, patch_bytes: int, *, limit: int = LIMIT) -> None:
        self.folder, self.patch_bytes, self.limit = folder, patch_bytes, limit
        folder.mkdir(parents=True, exist_ok=True)
        self._own: Path | None = None
        self._shown: dict[int, int] = {}  # our numbers of patches -> our file's
        self._read: dict[Path, tuple[int, int]] = {}  # bytes and patches taken from the others
        self._torn: dict[Path, int] = {}  # bytes after the last whole block, when last read
        self._damaged: set[Path] = set()
        self.nbytes = self._drop_oldest()

    def append(
        self,
        numbers: NDArray[np.int32],
        contents: NDArray[np.uint8],
        keys: NDArray[np.int32],
        errors: NDArray[np.float32],
    ) -> None:
        """Add to our own file, which begins with the first call.

        Errors (M,) stand under their centre and nine of `numbers`, (M, 10); `numbers` (P,) rise,
        and `contents` (P, bytes of a patch) are those patches'.
        """
        places = np.array([self._shown.get(number, -1) for number in numbers.tolist()], np.int32)
        fresh = places < 0
        places[fresh] = len(self._shown) + np.arange(fresh.sum())
        nine = places[np.searchsorted(numbers, keys[:, 1:])]
        packed = Block(contents[fresh], np.hstack([keys[:, :1], nine]), errors).pack()
        if self.nbytes + len(packed) > self.limit:
            return
        if self._own is None:
            handle, name = tempfile.mkstemp(suffix=SUFFIX, dir=self.folder)
            os.close(handle)
            self._own, packed = Path(name), MAGIC + packed
        with self._own.open("ab", buffering=0) as file:
            file.write(packed)
        self._shown.update(zip(numbers[fresh].tolist(), places[fresh].tolist(), strict=True))
        self.nbytes += len(packed)

    def news(self) -> Iterator[tuple[Path, Block]]:
        """What the others have appended since the last call, each file's blocks in order."""
        found = sorted(self.folder.glob(f"*{SUFFIX}"))
        self.nbytes = sum(_size(path) for path in found)
        for path in found:
            if path != self._own and path not in self._damaged:
                yield from ((path, block) for block in self._unread(path))

    def distrust(self, path: Path, why: str) -> None:
        """Read nothing more of a file, and say so."""
        logging.getLogger(__name__).warning("%s: ignored from here on, %s", path, why)
        self._damaged.add(path)

    def tell_of_torn_ends(self) -> None:
        """Say which files end in part of a block, as a killed process leaves them."""
        for path, torn in self._torn.items():
            if torn and path not in self._damaged:
                message = "%s: its last %d bytes are ignored, they are part of a block only"
                logging.getLogger(__name__).warning(message, path, torn)

    def _unread(self, path: Path) -> Iterator[Block]:
        begun, known = self._read.setdefault(path, (0, 0))
        if _size(path) <= begun:
            return
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        at = begun or len(MAGIC)
        if not begun and data[:at] != MAGIC:
            self.distrust(path, "it does not begin as a file of errors")
        while path not in self._damaged and at + HEAD.size <= len(data):
            patches, errors, checksum = HEAD.unpack_from(data, at)
            end = at + HEAD.size + patches * self.patch_bytes + errors * 44
            if end > len(data):
                break  # still being written, or torn
            payload = data[at + HEAD.size : end]
            block = self._parse(payload, patches, errors)
            known += patches
            if _checksum(payload) != checksum or not _within(block, known):
                self.distrust(path, "a block is damaged")
                break
            at = end
            self._read[path] = at, known
            yield block
        self._torn[path] = len(data) - at

    def _parse(self, payload: memoryview, patches: int, errors: int) -> Block:
        sizes = patches * self.patch_bytes, 40 * errors
        contents, keys, values = np.split(np.frombuffer(payload, np.uint8), np.cumsum(sizes))
        return Block(
            contents.reshape(patches, self.patch_bytes),
            keys.view(np.int32).reshape(errors, 10),
            values.view(np.float32),
        )

    def _drop_oldest(self) -> int:
        """Make room for half the limit; returns the bytes that stay."""
        files = sorted(self.folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)
        sizes = [_size(path) for path in files]
        while sum(sizes) > self.limit // 2:
            files.pop(0).unlink(missing_ok=True)
            sizes.pop(0)
        return sum(sizes)


def _within(block: Block, patches: int) -> bool:
    """Whether there are errors, all of patches that the file has shown."""
    nine = block.keys[:, 1:]
    return bool(len(nine) and (nine >= 0).all() and (nine < patches).all())


def _checksum(payload: bytes | memoryview) -> bytes:
    return hashlib.blake2b(payload, digest_size=16).digest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
