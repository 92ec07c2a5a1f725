"""What a process of ours needs of its surroundings before anything else: signals, streams, a name.

Run first, by `python -m pipeline.…`: it imports what the interpreter has, since the imports of a
stage take seconds in which DVC may die, or a person press Ctrl-C.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import pwd
import re
import signal
import sys
from types import TracebackType

PR_SET_PDEATHSIG = 1  # linux/prctl.h
DVC_STAGE = "DVC_STAGE"  # DVC sets it for the stages that it starts
# What torchrun and others leave for the processes of a group; and torchrun's own mark.
GROUP = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK")
UNMAPPED = re.compile("map segment|allocate memory|out of memory|^memory")  # what loaders say
TORCHRUN = "TORCHELASTIC_RUN_ID"


class Messages(io.TextIOWrapper):
    """Standard error that may be closed, or a terminal that is gone: work goes on unheard."""

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError, ValueError):
            super().write(text)
            super().flush()
        return len(text)

    def flush(self) -> None:
        """Everything is written at once."""


def begin() -> None:
    """Prepare this process for work of any length, in any surroundings."""
    if DVC_STAGE in os.environ:  # any other parent may go: a shell, with `nohup` or `setsid`
        die_with_parent()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as by `&`
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # during imports; then interruptible()
    _open_streams()
    sys.excepthook = _tell
    if TORCHRUN not in os.environ:
        for name in GROUP:  # left over by a job of another kind
            os.environ.pop(name, None)
    if not {"LOGNAME", "USER", "LNAME", "USERNAME"} & os.environ.keys():
        try:  # torch asks for it
            pwd.getpwuid(os.getuid())
        except KeyError:
            os.environ["USER"] = f"uid-{os.getuid()}"


def interruptible() -> None:
    """Have Ctrl-C raise KeyboardInterrupt again: the imports are over."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def rank() -> int:
    """The number of this process among those of torchrun; 0 without it."""
    return int(os.environ["RANK"]) if TORCHRUN in os.environ else 0


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (Linux): no stage runs on orphaned."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an exception; one line where a limit on memory is too low even for the libraries."""
    if isinstance(error, ImportError | MemoryError) and UNMAPPED.search(str(error) or "memory"):
        print(f"error: out of memory as libraries load ({error}); raise the limit", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _open_streams() -> None:
    """Standard streams that take any text; a closed one leads nowhere.

    Else the next file opened would be the standard error that libraries write to.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # stays open
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # in the C locale
    encoding = getattr(sys.stderr, "encoding", "utf-8")
    raw = open(2, "wb", buffering=0, closefd=False)  # noqa: SIM115  # stays open
    sys.stderr = Messages(io.BufferedWriter(raw), encoding, "backslashreplace")
