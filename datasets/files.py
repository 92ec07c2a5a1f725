"""Files that are either whole or not there, and their digests."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

from datasets.errors import FoveaError


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path`, where anyone sees the old file or the new one, never half of it.

    Raises FoveaError where the disk is full; nothing stays behind then.
    """
    temporary = path.with_name(f".{path.name}.tmp")  # a killed run's is overwritten by the next
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FoveaError(
                f"{path}: the disk is full; free some space and run the same command again, "
                "finished parts are kept"
            ) from error
        raise
