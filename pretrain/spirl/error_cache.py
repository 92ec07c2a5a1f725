"""A cache of reconstruction errors: most of a frame's patches were in earlier frames too.

A patch's reconstruction error depends on the weights, its position and the bytes of nine patches.
An Atari game repeats these nine often: about nine times in ten under a random policy. Distinct
patches are numbered in the order of their first use, and an error's key is its centre and the nine
numbers. Both dictionaries compare whole keys and no number is used twice, so a false cache hit is
impossible.

No result depends on the cache: `errors_at` computes a centre to the same bits in any batch, so a
dropped entry only costs time. An interrupted run that starts with an empty cache ends in the same
bytes, and so does one that starts with the entries of other processes (`share`).
"""

from __future__ import annotations

import contextlib
import logging
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretrain.modules.vit import MaskedViT, patchify
from pretrain.spirl.error_log import Block, ErrorLog, stamp
from pretrain.spirl.error_map import errors_at, neighbourhoods

LIMIT = 512 * 2**20  # bytes an encoder; each seed's process has its own
INTERVAL = 20  # frames between two readings of the other processes' files
TOGETHER = 64  # frames of a batch that are looked up before their misses are computed
SAMPLES = 4  # errors of another process's file that are computed again before it is used

# Bytes of an entry in CPython beyond the key's own: the objects' headers, a number, rounding, and
# its share of a dictionary that has just grown threefold.
OVERHEAD = 48 + 32 + 64


class ErrorCache:
    """`error_map` for a CPU, cached: (B, C, H, W) uint8 -> (B, N) float32.

    Entries are in two generations. A cache hit moves its entry to the young one. When the young
    generation is full, the old one is dropped and the young one becomes the old. The cache empties
    itself when the model's weights change, by `load_state_dict` or otherwise in place: their
    tensors' version counters show that, except for a change of their `.data`. Maps with NaN or
    infinite errors are not cached.

    Attributes:
        hits, misses: centres looked up and computed since the start.
        nbytes: the size of the entries, rounded up; never more than `limit`.

    Raises ValueError if `limit` is less than two frames' entries.
    """

    def __init__(self, model: MaskedViT, *, limit: int = LIMIT) -> None:
        channels, height, width = model.image_shape
        self._patch_bytes = channels * height * width // model.patches + OVERHEAD
        self._error_bytes = 4 * 10 + OVERHEAD
        self._frame_bytes = model.patches * (self._patch_bytes + self._error_bytes)
        if limit < 2 * self._frame_bytes:
            raise ValueError(
                f"limit: {limit} bytes, must be at least two frames', {2 * self._frame_bytes}"
            )
        self.model, self.limit = model, limit
        self.hits = self.misses = 0
        self._log: ErrorLog | None
        self._frames = 0  # looked up so far
        self._numbers = 0  # numbers in use; none is used again
        self._near = neighbourhoods(*model.grid)
        centre = torch.arange(model.patches)[:, None]
        index, real, _ = self._near
        # The centre replaces a neighbour beyond the border; the key has the centre's position too.
        self._nine = torch.cat([centre, torch.where(real, index, centre)], dim=1).numpy()
        self._centre = centre.numpy().astype(np.int32)
        self.forget()

    @property
    def nbytes(self) -> int:
        """An upper bound of the size of all entries."""
        return self._size(self._young) + self._size(self._old)

    def share(self, folder: Path) -> None:
        """Read the errors that other processes with the same weights wrote below `folder`, now and
        at intervals, and write this process's: see `pretrain/spirl/error_log.py`.
        """
        self._theirs: dict[Path, array[int]] = {}  # numbers of a file's patches
        with self._else_unshared():
            self._log = ErrorLog(folder, stamp(self.model), self._patch_bytes - OVERHEAD)
            self._take(self._log)
            self._log.warn_of_torn_ends()

    def forget(self) -> None:
        """Drop all entries, and stop sharing."""
        self._log = None
        self._young, self._old = _Generation(), _Generation()
        # References, so that no new weights can be allocated at their addresses.
        self._weights = [weight.detach() for weight in self.model.parameters()]
        self._places = [
            (part._parameters, name)  # ten times faster than `parameters()`
            for part in self.model.modules()
            for name, weight in part._parameters.items()
            if weight is not None
        ]
        self._state = self._versions()

    def __call__(self, image: Tensor) -> Tensor:
        """A frame's errors do not depend on the others. Misses of several frames are computed
        together, so that few passes need padding.
        """
        if self._versions() != self._state:
            self.forget()
        errors = [torch.empty(0, self.model.patches)]
        for group in torch.split(image, TOGETHER) if len(image) else ():
            frames = [self._look_up(frame) for frame in group]
            self._compute(group, frames)
            errors.append(torch.tensor([frame.errors for frame in frames], dtype=torch.float32))
        return torch.cat(errors)

    def _look_up(self, image: Tensor) -> _Frame:
        self._frames += 1
        if self._log and self._frames % INTERVAL == 0:
            with self._else_unshared():
                self._take(self._log)
        self._make_room()
        pixels = patchify(image[None], self.model.patch)[0].numpy()
        numbers = np.array([self._number(patch) for patch in _rows(pixels)], np.int32)
        table = np.concatenate([self._centre, numbers[self._nine]], axis=1)
        keys = _rows(table)
        errors = [self._young.errors.get(key) for key in keys]
        for centre, key in enumerate(keys):
            if errors[centre] is None and key in self._old.errors:
                errors[centre] = self._young.errors[key] = self._old.errors[key]
        return _Frame(pixels, numbers, keys, errors)

    def _compute(self, images: Tensor, frames: list[_Frame]) -> None:
        """Compute the frames' misses, each distinct one once."""
        missing: dict[bytes, tuple[int, int]] = {}  # key -> the first frame that has it, centre
        for at, frame in enumerate(frames):
            for centre, (key, error) in enumerate(zip(frame.keys, frame.errors, strict=True)):
                if error is None:
                    missing.setdefault(key, (at, centre))
        self.misses += len(missing)
        self.hits += len(frames) * self.model.patches - len(missing)
        if not missing:
            return
        rows, centres = np.array(list(missing.values())).T
        distinct, place = np.unique(rows, return_inverse=True)
        patches = torch.cat([self.model.to_patches(images[[row]]) for row in distinct])
        numbers = torch.from_numpy(place * self.model.patches + centres)
        errors = errors_at(self.model, patches, numbers, self._near).numpy()
        error_of = dict(zip(missing, errors.tolist(), strict=True))
        for frame in frames:
            pairs = zip(frame.keys, frame.errors, strict=True)
            frame.errors = [error_of[key] if error is None else error for key, error in pairs]
        for row in distinct:
            own = rows == row
            if np.isfinite(errors[own]).all():
                self._keep(frames[row], centres[own], errors[own])

    def _keep(self, frame: _Frame, centres: NDArray[np.int64], errors: NDArray[np.float32]) -> None:
        """Cache the errors computed for a frame, and append them to this process's file."""
        self._make_room()
        keys = [frame.keys[centre] for centre in centres]
        self._young.errors.update(zip(keys, errors.tolist(), strict=True))
        if self._log:
            places = np.unique(self._nine[centres])
            numbers, first = np.unique(frame.numbers[places], return_index=True)
            table = np.frombuffer(b"".join(keys), np.int32).reshape(-1, 10)
            with self._else_unshared():
                self._log.append(numbers, frame.pixels[places[first]], table, errors)

    @contextlib.contextmanager
    def _else_unshared(self) -> Iterator[None]:
        """Stop sharing where a file fails: the files only save time."""
        try:
            yield
        except OSError as error:
            message = "%s; errors are no longer shared, which is slower and changes no result"
            logging.getLogger(__name__).warning(message, error)
            self._log = None

    def _make_room(self) -> None:
        """Make room for one frame, or for one block of another process."""
        if self._size(self._young) + self._frame_bytes > self.limit // 2:
            self._old, self._young = self._young, _Generation()

    def _take(self, log: ErrorLog) -> None:
        """Cache the errors that the other processes have appended since the last call."""
        for path, block in log.news():
            if path not in self._theirs and not self._agrees(block):
                log.ignore(path, "its errors are not those of this encoder on this machine")
                continue
            self._make_room()
            numbers = self._theirs.setdefault(path, array("i"))
            numbers.extend(self._number(patch) for patch in _rows(block.contents))
            nine = np.frombuffer(numbers, np.int32)[block.keys[:, 1:]]
            keys = _rows(np.hstack([block.keys[:, :1], nine]))
            self._young.errors.update(zip(keys, block.errors.tolist(), strict=True))

    def _agrees(self, block: Block) -> bool:
        """Whether some errors of a file's first block are bit by bit those computed here."""
        rows = np.linspace(0, len(block.keys) - 1, SAMPLES).astype(int)
        for (centre, *nine), error in zip(block.keys[rows], block.errors[rows], strict=True):
            if not 0 <= centre < len(self._nine):
                return False
            pixels = np.zeros((self.model.patches, block.contents.shape[1]), np.uint8)
            pixels[self._nine[centre]] = block.contents[nine]
            patches = torch.from_numpy(pixels)[None].float() / 255
            expected = errors_at(self.model, patches, torch.tensor([centre]), self._near)
            if expected.numpy().tobytes() != error.tobytes():
                return False
        return True

    def _number(self, patch: bytes) -> int:
        """The number of a patch's content, a new one if it is not cached."""
        number = self._young.numbers.get(patch)
        if number is None:
            number = self._old.numbers.get(patch)
            if number is None:
                number = self._numbers
                self._numbers += 1
            self._young.numbers[patch] = number
        return number

    def _size(self, generation: _Generation) -> int:
        numbers, errors = len(generation.numbers), len(generation.errors)
        return numbers * self._patch_bytes + errors * self._error_bytes

    def _versions(self) -> list[tuple[int, int]]:
        weights = (cast(Tensor, table[name]) for table, name in self._places)
        return [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights]


@dataclass
class _Frame:
    """A frame that is looked up.

    Attributes:
        pixels: its patches' bytes, (N, bytes of a patch) uint8; `numbers` (N,) are their numbers.
        keys: for each centre, its position and the numbers of its nine patches.
        errors: for each centre, None if it is not cached.
    """

    pixels: NDArray[np.uint8]
    numbers: NDArray[np.int32]
    keys: list[bytes]
    errors: list[float | None]


class _Generation:
    """The numbers of patches, and the errors of centres by their keys."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}
        self.errors: dict[bytes, float] = {}


def _rows(table: NDArray[np.generic]) -> list[bytes]:
    """Each row's bytes."""
    table = np.ascontiguousarray(table)
    rows: list[bytes] = table.view(f"V{table.strides[0]}").ravel().tolist()
    return rows
