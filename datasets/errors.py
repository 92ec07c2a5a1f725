"""The exception for mistakes that a user can correct, and how messages quote values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class FoveaError(ValueError):
    """A mistake in the input; its message names the file or key, what is wrong and what to do.

    Stages print the message as it stands and exit with status 1, without a traceback.
    """


class UnstableError(FoveaError):
    """An unstable simulation. It is deterministic, so running it again does not help: in training
    the seed fails, in an evaluation the episode ends there.
    """

    def __init__(self, message: str, info: Mapping[str, Any] | None = None) -> None:
        """`info` is the environment's at the end of an episode."""
        super().__init__(message)
        self.info = info or {}  # empty where gymnasium rebuilds it from the message alone


def brief(error: BaseException, most: int = 200) -> str:
    """An exception's message, on one line of up to `most` characters."""
    text = " ".join(str(error)[: 2 * most].split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def quoted(value: object, most: int = 60) -> str:
    """A value as a message quotes it: its `repr`, cut to `most` characters."""
    if isinstance(value, (str, bytes)):
        value = value[: most + 1]  # no need to escape a megabyte
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
