"""Tasks side by side, one process and one torch thread each; none outlives its parent."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkContext, SpawnContext
from multiprocessing.queues import SimpleQueue
from multiprocessing.sharedctypes import Synchronized
from typing import Protocol

from datasets.errors import FoveaError, brief
from pipeline.runtime.process import die_with_parent
from pipeline.runtime.progress import Progress

USER_ERROR = 3  # exit status of a worker that passed on what the user can put right
REFUSED = re.compile("allocate memory|out of memory|bad_alloc")  # what torch says of memory
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, or the limit on a file's size


class Task(Protocol):
    """Picklable work."""

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Do it, telling `progress` how many more units are done each time."""
        ...


def one_thread() -> None:
    """One thread in every library: side by side, two threads a process are slower than one.

    Torch is not imported for it, which takes seconds: it reads the environment when it is.
    """
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


def uses_gpu() -> bool:
    """Whether there is a GPU that this process may have touched: without torch it has not."""
    if "torch" not in sys.modules:
        return False
    import torch

    return torch.cuda.is_available()


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(
    tasks: Sequence[Task], *, label: str, total: int, unit: str, workers: int | None = None
) -> None:
    """Run every task in one of `workers` processes (default: as many as cores).

    Raises:
        FoveaError: a task failed, with its message where that was for the user; the others are
            stopped (they resume when the stage runs again).
    """
    # CUDA does not survive a fork. Without it a fork saves the seconds that importing torch takes;
    # it is safe because stages run torch on one thread.
    context: SpawnContext | ForkContext = (
        multiprocessing.get_context("spawn") if uses_gpu() else multiprocessing.get_context("fork")
    )
    one_thread()  # inherited by the children
    counter, taken = context.Value("q", 0), context.Value("q", 0)
    messages: SimpleQueue[str] = context.SimpleQueue()
    count = min(workers or cores(), len(tasks))
    processes = [
        context.Process(target=_work, args=(tasks, taken, counter, messages, count), daemon=True)
        for _ in range(count)
    ]
    progress = Progress(label, total, unit)
    try:
        for process in processes:
            process.start()
        working = True
        while working:
            time.sleep(0.02)
            # Asked before the exit codes are, so that the last worker's failure is seen too.
            working = any(process.is_alive() for process in processes)
            progress.reach(counter.value)
            for process in processes:
                if process.exitcode == USER_ERROR:
                    raise FoveaError(messages.get())
                if process.exitcode:
                    raise FoveaError(_why(label, process.exitcode))
        progress.reach(counter.value)
        progress.finish()
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()


def _work(
    tasks: Sequence[Task],
    taken: Synchronized[int],
    counter: Synchronized[int],
    messages: SimpleQueue[str],
    count: int,
) -> None:
    """One worker of several: takes the next task until none is left (starting a process costs
    seconds).
    """
    die_with_parent()
    if count > 1:  # or Mesa, where no GPU draws, has a thread a core in each
        os.environ.setdefault("LP_NUM_THREADS", "0")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def report(more: int = 1) -> None:
        with counter.get_lock():
            counter.value += more

    try:
        while True:
            with taken.get_lock():
                number = taken.value
                taken.value += 1
            if number >= len(tasks):
                return
            tasks[number](report)
    except Exception as error:
        if message := explain(error):
            messages.put(message)
            os._exit(USER_ERROR)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def explain(error: Exception) -> str:
    """One line for the user: what is wrong with which file or key, and what to do about it.

    Nothing where it is no one's to put right but ours.
    """
    if isinstance(error, FoveaError):
        return str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and REFUSED.search(str(error))
    ):
        return (
            f"out of memory ({brief(error) or 'no amount is known'}); lower `batch_size`, "
            "`replay_capacity` or `seeds`, or raise the limit; finished parts are kept"
        )
    if not isinstance(error, OSError):
        return ""
    if isinstance(error, FileNotFoundError) and not error.filename:
        return str(error)  # our own words, of pretrain/frozen.py
    what = str(error) if error.filename else f"artifacts/: {error}"
    if isinstance(error, shutil.Error):  # of copytree: what, whereto and why for each file
        what = str(error.args[0][0][2])
    if error.errno in FULL or any(os.strerror(code) in what for code in FULL):
        return (
            f"{what}; free some space, or raise the limit, and run the same command again: "
            "finished parts are kept"
        )
    return f"{what}; nothing was published, run the stage again to go on from here"


def _why(label: str, code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"{label}: a worker was killed by {name}; run the stage again to go on from here"
    return f"{label}: a worker failed (its traceback is above)"
