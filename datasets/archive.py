"""The container of a shard: a tar of `.npz` members, written reproducibly and read defensively.

tar is WebDataset's format, npz is numpy's. A shard is written without dates, users or platform
marks, so equal columns give equal bytes. It is read only if its members are regular files with the
expected names and sizes, and its columns plain numeric arrays whose size agrees with their header.
Nothing is unpickled, and nothing is unpacked to disk.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import math
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.errors import FoveaError, brief, quoted

Columns = dict[str, NDArray[np.generic]]  # name -> array, all of the same length
Member = tuple[str, Columns]  # key (`{stream:03d}-{start:08d}`) and columns

MAX_BYTES = 1 << 28  # of a shard file, and of all that it unpacks to: 256 MiB
LEVEL = 3  # of deflate: 70 us a frame, a third of the time of level 6 for 1.4 times the bytes
MEMBER_NAME = re.compile(r"\d{3}-\d{8}\.npz")
COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}\.npy")
READERS = 4  # threads: hashing and inflating release the GIL


def pack(members: Iterable[Member]) -> bytes:
    """The tar of `members`, in the order given; keys must be `{stream:03d}-{start:08d}`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, columns in members:
            data = _pack_columns(columns)
            entry = tarfile.TarInfo(f"{key}.npz")  # its date, user and group are 0 and empty
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def unpack(path: Path, digest: str | None = None) -> list[Member]:
    """The members of one shard, in order; arrays are read-only.

    Raises FoveaError naming the shard where its bytes are not those of `digest` (SHA-256) or it
    holds anything but what pack() writes.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES} bytes")
        data = path.read_bytes()
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            raise ValueError("its SHA-256 is not the one in the manifest")
        if len(data) < 1024 or any(data[-1024:]):
            raise ValueError("the end of the archive is missing")
        members: list[Member] = []
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for entry in tar:
                room = MAX_BYTES - sum(map(_size, members))
                members.append(_unpack_member(tar, entry, room))
        return members
    except Exception as error:  # tarfile, zipfile, zlib and numpy raise a dozen kinds
        raise FoveaError(
            f"{path}: damaged or not a shard ({brief(error)}); delete its folder and "
            "build it again, or fetch it again"
        ) from error


def unpack_folder(
    folder: Path, digests: Mapping[str, str] | None = None, stream: int | None = None
) -> Iterator[tuple[Path, Member]]:
    """Every member of every `*.tar` of a folder, or of one stream, in the order of the names.

    With `digests` (file name -> SHA-256, such as a manifest's `files`; names other than `*.tar` are
    ignored) the folder must hold exactly those shards. Raises FoveaError as unpack() does.
    """
    pattern = "*.tar" if stream is None else f"{stream:03d}-*.tar"
    paths = sorted(folder.glob(pattern))
    names = {path.name for path in paths}
    shards = set(fnmatch.filter(digests, pattern)) if digests is not None else names
    for name in sorted(shards ^ names):
        what = "is missing" if name in shards else "is not in the manifest"
        raise FoveaError(f"{folder}/{quoted(name)[1:-1]}: {what}; build or fetch {folder} again")
    if not paths:
        raise FoveaError(
            f"{folder}: no shards (*.tar) in it; build it first, or name another folder"
        )
    expected = [digests[path.name] if digests is not None else None for path in paths]
    with ThreadPoolExecutor(READERS) as pool:
        for path, members in zip(paths, pool.map(unpack, paths, expected), strict=True):
            for member in members:
                yield path, member


def _pack_columns(columns: Columns) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
        for name, array in columns.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            raw = io.BytesIO()
            np.lib.format.write_array(raw, np.ascontiguousarray(array), (1, 0), allow_pickle=False)
            archive.writestr(entry, raw.getbuffer(), compresslevel=LEVEL)
    return buffer.getvalue()


def _size(member: Member) -> int:
    """Bytes of a member's columns."""
    return sum(column.nbytes for column in member[1].values())


def _unpack_member(tar: tarfile.TarFile, entry: tarfile.TarInfo, room: int) -> Member:
    """The member of a tar's entry; its columns may have `room` bytes, npy headers included."""
    name = quoted(entry.name)
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise ValueError(f"member {name} is not a regular file")
    if not MEMBER_NAME.fullmatch(entry.name):
        raise ValueError(f"member {name} is not named like 000-00000000.npz")
    if entry.size > MAX_BYTES:
        raise ValueError(f"member {name} claims {entry.size} bytes")
    file = tar.extractfile(entry)
    data = file.read() if file is not None else b""  # raises ReadError where it is cut short
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if sum(column.file_size for column in entries) > room:
            raise ValueError(f"member {name}: the shard unpacks to more than {MAX_BYTES} bytes")
        columns: Columns = {}
        for column in entries:
            plain = column.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if not (plain and COLUMN_NAME.fullmatch(column.filename)):
                raise ValueError(f"member {name} holds {quoted(column.filename)}")
            if column.filename.removesuffix(".npy") in columns:
                raise ValueError(f"member {name} holds {column.filename} twice")
            columns[column.filename.removesuffix(".npy")] = _array(archive.read(column))
    if len({len(array) for array in columns.values()}) != 1:
        raise ValueError(f"member {name} has columns of different lengths, or none")
    return entry.name.removesuffix(".npz"), columns


def _array(data: bytes) -> NDArray[np.generic]:
    """The numeric, C-ordered array of `.npy` bytes, without a copy."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array of another npy version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    begin = stream.tell()
    if fortran or not shape or dtype.kind not in "biuf" or min(shape) < 0:
        raise ValueError(f"an array of {dtype}, shape {shape}, which no shard has")
    if math.prod(shape) * dtype.itemsize != len(data) - begin:
        raise ValueError(f"an array whose size does not match its header's shape {shape}")
    return np.frombuffer(data, dtype, offset=begin).reshape(shape)
