"""A task on a node of a cluster: its inputs arrive, and its files leave while it works.

The task works in a folder of its own, in which all files have the names that they have on the head.
Inputs are kept on the node by their digest, so that each arrives there once; those that no job has
used for a week are deleted. All this is in a folder of the node's own, `$TMPDIR/fovea-<user>`.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from datasets.errors import FoveaError
from pipeline.runtime import artifact, travel
from pipeline.runtime.parallel import Task, explain, one_thread
from pipeline.runtime.travel import Changes, Input, Parcel

EVERY = 2.0  # seconds between updates ...
SHARE = 20  # ... or so many times the seconds that the last one took
Get = Callable[[Any], Sequence[travel.Piece]]  # Ray's: a reference -> what it refers to


@dataclass(frozen=True)
class Update:
    """News of a job."""

    units: int  # done since the last one
    parcel: Parcel
    ended: bool = False
    error: str = ""  # with which it ended, for the user ...
    trace: str = ""  # ... or of a mistake in the program


def work(
    task: Task,
    inputs: Sequence[tuple[Input, Any]],
    begun: Parcel,
    versions: Mapping[str, str],
    *,
    get: Get,
    node: Path | None = None,
) -> Iterator[Update]:
    """Do a task whose files so far are `begun`, with the head's `versions`, on a `node`'s folder.

    The last update has all files that were not sent before.
    """
    one_thread()
    node = node or _node()
    updates: SimpleQueue[Update] = SimpleQueue()
    with _own_folder(node / "jobs"):
        try:
            if wrong := unlike(versions, artifact.versions()):
                raise FoveaError(wrong)
            for source, reference in inputs:
                path = travel.fetch(source, node / "inputs", partial(get, reference))
                source.place.parent.mkdir(parents=True, exist_ok=True)
                source.place.symlink_to(path)
            travel.write(begun, task.writes)
            for place in task.writes:
                place.parent.mkdir(parents=True, exist_ok=True)
        except (FoveaError, OSError) as error:
            yield Update(0, Parcel(), True, f"node {platform.node()}: {explain(error)}")
            return
        # In a thread, so that this one can send what the other reports.
        Thread(target=_run, args=(task, Changes(task.writes), updates.put), daemon=True).start()
        while True:
            update = updates.get()
            yield update
            if update.ended:
                return


def unlike(head: Mapping[str, str], node: Mapping[str, str]) -> str:
    """What differs between the versions on a node and on the head; empty if nothing does."""
    missing = [name for name, version in node.items() if version == "absent" != head[name]]
    if missing:
        return (
            f"has no {', '.join(missing)}; install requirements.lock there, and start Ray from "
            "that environment"
        )
    differ = [f"{k} {node[k]}, here {head[k]}" for k in head if node[k] != head[k]]
    return f"has {'; '.join(differ)}; install the same requirements.lock there" if differ else ""


def _node() -> Path:
    """This user's folder on this node.

    Raises FoveaError for one of another user, who could have put anything into it.
    """
    folder = Path(tempfile.gettempdir(), f"fovea-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise FoveaError(f"{folder}: is another user's; delete it")
    return folder


def _run(task: Task, changes: Changes, send: Callable[[Update], None]) -> None:
    units, due = 0, time.monotonic() + EVERY

    def report(more: int = 1) -> None:
        """Called between two writes of the task, so its files are those of an interruption."""
        nonlocal units, due
        units += more
        if (began := time.monotonic()) >= due:
            send(Update(units, changes()))
            units, now = 0, time.monotonic()
            due = now + max(EVERY, SHARE * (now - began))

    error = trace = ""
    try:
        task(report)
    except Exception as problem:
        error, trace = explain(problem), traceback.format_exc()
    except BaseException:
        trace = traceback.format_exc()
    error = f"node {platform.node()}: {error}" if error else ""
    send(Update(units, changes(), True, error, trace))


@contextlib.contextmanager
def _own_folder(jobs: Path) -> Iterator[None]:
    """Work in a new folder in `jobs`; delete it in the end, and those of killed jobs."""
    before, folder = Path.cwd(), jobs / str(os.getpid())
    jobs.mkdir(parents=True, exist_ok=True)
    for old in jobs.glob("[0-9]*"):
        if not Path("/proc", old.name).exists():
            shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)
