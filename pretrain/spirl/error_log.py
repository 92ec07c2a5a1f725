"""Cached errors in files, which parallel seeds and later runs share.

Each process appends to a file of its own and reads those of all others. A file has one block a
frame: the contents of patches that are new in the file, numbered by the writer, and errors with
their keys, centre and nine numbers. A block has a checksum, whose key is the `stamp` of weights,
code, versions and processor. Before a file is used, some errors of its first block are computed
again, and must agree bit by bit. So files of other weights are ignored, and those of a machine that
rounds differently, as are truncated and damaged blocks. There is no protection against forged
checksums: anyone who can forge them could change the weights too.

Its benefit: two parallel seeds of SPIRL on Frostbite, 1,600 steps each, computed 15 % fewer errors
with it (80,311, not 94,752). They took 234 s of CPU time, not 280. At 1.8 ms an error and 15 ms for
the rest of a step, both measured separately, the errors account for 12 % of it. A repeated run, or
an evaluation, computes hardly any error again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import platform
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

from pretrain.modules import linear, vit
from pretrain.modules.vit import MaskedViT
from pretrain.spirl import error_map

LIMIT = 2 * 2**30  # bytes of all weights' files; beyond, the oldest are deleted at the next start
PATCHES = 2**18  # in a file before the next one begins: each takes some 100 bytes of memory
SUFFIX = ".errors"
MAGIC = b"fovea-errors/1\n"
# Variables that choose the kernels of a matrix product.
KERNELS = frozenset(
    ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS",
     "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA")
)  # fmt: skip
HEAD = struct.Struct("<II16s")  # patches, errors, checksum


@dataclass(frozen=True)
class Block:
    """The misses of one frame, as stored in a file.

    Attributes:
        contents: bytes of the patches that are new in the file, (P, bytes of a patch) uint8.
        keys: centre and nine patches of each error, (M, 10) int32; patches are numbered from 0 in
            the file's order.
        errors: (M,) float32.
    """

    contents: NDArray[np.uint8]
    keys: NDArray[np.int32]
    errors: NDArray[np.float32]

    def pack(self, stamp: bytes) -> bytes:
        """The block's bytes; `stamp` is the checksum's key."""
        parts = (self.contents, self.keys, self.errors)
        payload = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
        checksum = _checksum(payload, stamp)
        return HEAD.pack(len(self.contents), len(self.errors), checksum) + payload


def stamp(model: MaskedViT) -> bytes:
    """32 bytes over weights, code, versions, threads and the processor."""
    digest = hashlib.sha256()
    heads = [part.num_heads for part in model.modules() if isinstance(part, Attention)]
    digest.update(f"{model.image_shape} {model.patch} {heads}".encode())
    for name, weight in model.state_dict().items():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.cpu().contiguous().numpy().tobytes())
    for source in (__file__, error_map.__file__, linear.__file__, vit.__file__):
        digest.update(Path(source).read_bytes())
    for name in sorted(set(os.environ) & KERNELS):
        digest.update(f"{name} {os.environ[name]}".encode())
    capability = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()  # sums are split by threads
    products = linear.is_faster()  # whether oneDNN multiplies
    parts = (torch.__version__, timm.__version__, _processor(), capability, products, threads)
    digest.update(" ".join(map(str, parts)).encode())
    return digest.digest()


def _processor() -> str:
    """The processor's name and instructions, where Linux gives them: kernels may depend on more
    than the capability that torch reports.
    """
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").partition("\n\n")[0].splitlines()
        names = ("cpu family", "model", "stepping", "flags", "CPU ", "Features")  # and Arm's
        return " ".join(line for line in lines if line.startswith(names))
    return platform.processor()


class ErrorLog:
    """This process's file, and the positions in those of other processes with the same stamp. All
    methods may raise OSError.

    Attributes:
        nbytes: the last known size of all weights' files, with the bytes appended since. Nothing is
            appended beyond `limit`.
    """

    def __init__(self, store: Path, stamp: bytes, patch_bytes: int, *, limit: int = LIMIT) -> None:
        self.folder, self.stamp = store / stamp.hex()[:16], stamp
        self.patch_bytes, self.limit = patch_bytes, limit
        self.folder.mkdir(parents=True, exist_ok=True)
        self._own: list[Path] = []  # the last one is appended to
        self._patches: dict[int, int] = {}  # our numbers of patches -> that file's
        self._positions: dict[Path, tuple[int, int]] = {}  # bytes and patches read from a file
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
        """Append to this process's file. The first call begins it, and a later call another one if
        it is full or was deleted.

        The keys of `errors` (M,) are `keys` (M, 10), a centre and nine of `numbers`; `numbers` (P,)
        are ascending, and `contents` (P, bytes of a patch) are those patches'.
        """
        begin = len(self._patches) >= PATCHES or not (self._own and self._own[-1].exists())
        # The last file's numbers are kept until the next file is written: without room now, there
        # may be room again before this one is full.
        patches = {} if begin else self._patches
        places = np.array([patches.get(number, -1) for number in numbers.tolist()], np.int32)
        fresh = places < 0
        places[fresh] = len(patches) + np.arange(fresh.sum())
        nine = places[np.searchsorted(numbers, keys[:, 1:])]
        block = Block(contents[fresh], np.hstack([keys[:, :1], nine]), errors)
        data = block.pack(self.stamp)
        if self.nbytes + len(data) > self.limit:
            return
        if begin:
            handle, name = tempfile.mkstemp(suffix=SUFFIX, dir=self.folder)
            os.close(handle)
            self._own.append(Path(name))
            data = MAGIC + data
        with self._own[-1].open("ab", buffering=0) as file:
            file.write(data)
        patches.update(zip(numbers[fresh].tolist(), places[fresh].tolist(), strict=True))
        self._patches = patches
        self.nbytes += len(data)

    def news(self) -> Iterator[tuple[Path, Block]]:
        """The blocks that the other processes have appended since the last call, in order."""
        self.nbytes = sum(size for _, size, _ in self._files())
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if path not in self._own and path not in self._damaged:
                yield from ((path, block) for block in self._unread(path))

    def ignore(self, path: Path, why: str) -> None:
        """Read no more of a file, with a warning."""
        logging.getLogger(__name__).warning("%s: ignored from here on, %s", path, why)
        self._damaged.add(path)

    def warn_of_torn_ends(self) -> None:
        """Warn of files that end in part of a block, as a killed process leaves them."""
        for path, torn in self._torn.items():
            if torn and path not in self._damaged:
                message = "%s: its last %d bytes are ignored, since they are a part of a block"
                logging.getLogger(__name__).warning(message, path, torn)

    def _unread(self, path: Path) -> Iterator[Block]:
        start, count = self._positions.setdefault(path, (0, 0))
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size <= start:
                    return
                data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError:
            return  # another process has deleted it to make room
        except OSError as error:
            self.ignore(path, f"it cannot be read ({error.strerror})")
            return
        at = start or len(MAGIC)
        if not start and data[:at] != MAGIC:
            self.ignore(path, "it does not begin as a file of errors")
        while path not in self._damaged and at + HEAD.size <= len(data):
            patches, errors, checksum = HEAD.unpack_from(data, at)
            end = at + HEAD.size + patches * self.patch_bytes + errors * 44
            if end > len(data):
                break  # not written completely
            payload = data[at + HEAD.size : end]
            block = self._parse(payload, patches, errors)
            count += patches
            if _checksum(payload, self.stamp) != checksum or not _within(block, count):
                self.ignore(path, "a block is damaged, or of another encoder or machine")
                break
            at = end
            self._positions[path] = at, count
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
        """Delete the oldest files of any weights down to half the limit; returns the bytes left."""
        files = sorted(self._files())
        while sum(size for _, size, _ in files) > self.limit // 2:
            files.pop(0)[2].unlink(missing_ok=True)
        return sum(size for _, size, _ in files)

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Time of the last change, size in bytes and path of each file of the store."""
        for path in self.folder.parent.glob(f"*/*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another process has deleted it
                status = path.stat()
                yield status.st_mtime, status.st_size, path


def _within(block: Block, patches: int) -> bool:
    """Whether there are errors, all finite, and all their patches are in the file."""
    nine = block.keys[:, 1:]
    valid = len(nine) and (nine >= 0).all() and (nine < patches).all()
    return bool(valid and np.isfinite(block.errors).all())


def _checksum(payload: bytes | memoryview, stamp: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=16, key=stamp).digest()
