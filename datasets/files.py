"""Atomic writes, digests, and JSON files of any origin."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from datasets.errors import FoveaError, brief, quoted

MAX_JSON = 1 << 24  # bytes of a file
DEPTH = 32  # lists and objects inside one another
DIGITS = 40  # of an integer
MAX_NAME = 255  # bytes of a file's name, as file systems have it


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically: a reader gets the old file or the new one, never a part.

    When this returns, the new file survives a power cut. Raises FoveaError if the disk is full;
    no file is left over then.
    """
    temporary = path.with_name(f".{path.name}.tmp")  # one that a killed run left is overwritten
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FoveaError(
                f"{path}: the disk is full; free some space and run the same command again, "
                "it keeps the finished parts"
            ) from error
        raise


def sync_tree(folder: Path) -> None:
    """Write all files of a folder to the disk, so that they outlive a power cut."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Write a file's bytes, or a folder's names, to the disk, so that they outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path, limit: int = MAX_JSON) -> Any:
    """The value of a JSON file, bounded in bytes, depth and digits; keys of an object are unique.

    Raises FoveaError naming the file for anything else, FileNotFoundError without a file.
    """
    try:
        if path.stat().st_size > limit:
            raise ValueError(f"larger than {limit} bytes")
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise FoveaError(f"{path}: not readable as JSON ({brief(error)})") from error


def parse_json(text: bytes) -> Any:
    """The value of a JSON text, with read_json()'s bounds. Raises ValueError for all else."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_not_finite,
        )
    except RecursionError as error:
        raise ValueError(f"nested more than {DEPTH} deep") from error
    level = [value]
    for _ in range(DEPTH):
        within = [one for one in level if isinstance(one, (dict, list))]
        level = [part for one in within for part in (one.values() if type(one) is dict else one)]
        if not level:
            return value
    raise ValueError(f"nested more than {DEPTH} deep")


def inside(folder: Path, name: object) -> Path:
    """The path of a file whose name is relative to its folder, as in manifests.

    Raises ValueError for a name outside of the folder, and for an invalid one.
    """
    parts = name.split("/") if isinstance(name, str) else []
    plain = all(part not in ("", ".", "..") and part.isprintable() for part in parts)
    short = all(len(part.encode(errors="replace")) <= MAX_NAME for part in parts)
    if not parts or not plain or not short or len(parts) > DEPTH:
        raise ValueError(f"{quoted(name)} is not the name of a file inside its folder")
    return folder.joinpath(*parts)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        [(key, times)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"key {quoted(key)} occurs {times} times")
    return value


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"{quoted(digits)}, an integer of {len(digits)} digits")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        _not_finite(text)
    return value


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{quoted(text)} is not a finite number")
