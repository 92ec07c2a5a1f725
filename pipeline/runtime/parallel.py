"""Parallel tasks in processes with one torch thread each, which end with their parent; on a cluster
if FOVEA_CLUSTER names one.
"""

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
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Protocol

from datasets.errors import FoveaError, brief
from pipeline.runtime.process import die_with_parent
from pipeline.runtime.progress import Progress

CLUSTER = "FOVEA_CLUSTER"  # `auto`, or an address: pipeline/runtime/cluster.py
# What Ray reads when it is imported: else it tries a wrong address for minutes.
IMPATIENT = {"RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_py_gcs_connect_timeout_s": "4"}
USER_ERROR = 3  # exit status of a worker that has passed on a message for the user
OUT_OF_MEMORY = re.compile("allocate memory|out of memory|bad_alloc")  # in torch's messages
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, or the limit on a file's size


class Task(Protocol):
    """Picklable work, a dataclass. Its result is a function of the files that it reads, and it goes
    on from those that it has written.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def gpu(self) -> bool:
        """Whether it uses a GPU if there is one."""
        ...

    @property
    def reads(self) -> tuple[Path, ...]:
        """Files, and folders of them; relative, or fields of the task."""
        ...

    @property
    def writes(self) -> tuple[Path, ...]:
        """Places in the working folder that no other task writes to: travel.owns()."""
        ...

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Do the work; call `progress` with the number of new units that are done."""
        ...


def one_thread() -> None:
    """Set one thread in every library: in parallel processes, two threads each are slower.

    Torch is not imported for this, which takes seconds: it will read the environment.
    """
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


def uses_gpu() -> bool:
    """Whether there is a GPU that this process may have used; without torch it has not."""
    if "torch" not in sys.modules:
        return False
    import torch

    return torch.cuda.is_available()


def cores() -> int:
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cluster() -> ModuleType | None:
    """The module that runs tasks on the cluster of FOVEA_CLUSTER; None if that is unset.

    Raises FoveaError if Ray is missing.
    """
    if not os.environ.get(CLUSTER):
        return None
    os.environ.update(IMPATIENT)
    try:
        from pipeline.runtime import cluster as module  # imports Ray
    except ModuleNotFoundError as error:
        raise FoveaError(
            f"{CLUSTER}: needs {error.name}; `make setup` installs it, or unset {CLUSTER}"
        ) from error
    return module


def run_parallel(
    tasks: Sequence[Task],
    *,
    label: str,
    total: int,
    unit: str,
    workers: int | None = None,
    here: bool = False,
) -> None:
    """Run every task in one of `workers` processes (default: as many as cores), or on the cluster
    of FOVEA_CLUSTER, unless they must run `here`.

    Raises:
        FoveaError: a task failed; its message is the task's if that is for the user. The others are
            stopped (they resume when the stage runs again).
    """
    if not here and (module := cluster()):
        progress = Progress(label, total, unit)
        module.run(tasks, label, progress)
        progress.finish()
        return
    # CUDA does not survive a fork. Without CUDA, a fork saves the seconds of importing torch. It is
    # safe because stages run torch on one thread.
    context: SpawnContext | ForkContext = (
        multiprocessing.get_context("spawn") if uses_gpu() else multiprocessing.get_context("fork")
    )
    one_thread()  # inherited by the children
    counter, following = context.Value("q", 0), context.Value("q", 0)
    messages: SimpleQueue[str] = context.SimpleQueue()
    count = min(workers or cores(), len(tasks))
    processes = [
        context.Process(
            target=_work, args=(tasks, following, counter, messages, count), daemon=True
        )
        for _ in range(count)
    ]
    progress = Progress(label, total, unit)
    try:
        for process in processes:
            process.start()
        working = True
        while working:
            time.sleep(0.02)
            # Read before the exit codes, so that the last worker's failure is noticed too.
            working = any(process.is_alive() for process in processes)
            progress.reach(counter.value)
            for process in processes:
                if process.exitcode == USER_ERROR:
                    raise FoveaError(messages.get())
                if process.exitcode:
                    raise FoveaError(_reason(label, process.exitcode))
        progress.reach(counter.value)
        progress.finish()
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()


def _work(
    tasks: Sequence[Task],
    following: Synchronized[int],
    counter: Synchronized[int],
    messages: SimpleQueue[str],
    count: int,
) -> None:
    """One of `count` workers: runs the task number `following` until none is left, since starting a
    process takes seconds.
    """
    die_with_parent()
    if count > 1:  # else Mesa, without a GPU, renders with a thread a core in each worker
        os.environ.setdefault("LP_NUM_THREADS", "0")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def report(more: int = 1) -> None:
        with counter.get_lock():
            counter.value += more

    try:
        while True:
            with following.get_lock():
                number = following.value
                following.value += 1
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
    """One line for the user: the file or key, the mistake in it, and what to do.

    Empty if it is an error of the program, which a user cannot correct.
    """
    if isinstance(error, FoveaError):
        return str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error))
    ):
        return (
            f"out of memory ({brief(error) or 'of an unknown amount'}); lower `batch_size`, "
            "`replay_capacity` or `seeds`, or raise the limit; finished parts are kept"
        )
    if not isinstance(error, OSError):
        return ""
    if isinstance(error, FileNotFoundError) and not error.filename:
        return str(error)  # a message of pretrain/frozen.py
    what = str(error) if error.filename else f"artifacts/: {error}"
    if isinstance(error, shutil.Error):  # of copytree: source, target and reason for each file
        what = str(error.args[0][0][2])
    if error.errno in FULL or any(os.strerror(code) in what for code in FULL):
        return (
            f"{what}; free some space, or raise the limit, and run the same command again: "
            "finished parts are kept"
        )
    return f"{what}; nothing was published, run the stage again to go on from here"


def _reason(label: str, code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"{label}: a worker was killed by {name}; run the stage again to go on from here"
    return f"{label}: a worker failed (its traceback is above)"
