"""Tasks on a Ray cluster: each is a job on some node, and its files come back while it works.

FOVEA_CLUSTER names the cluster that this machine, the head, belongs to. No file system is shared:
our code, a task's inputs and the files that it has written so far travel to the node. If a node is
lost, its jobs start again on others, from the files that had reached the head. Bytes are those of
processes on one machine, on CPUs of one kind.

Ray sends objects by pickle, and runs what reaches its ports. So a cluster is as trusted as a shell
on each of its machines; none of this is in an artifact.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import socket
import sys
import tempfile
import time
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
    TaskUnschedulableError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from datasets.errors import FoveaError, brief
from pipeline.config.closure import CODE, PACKAGES
from pipeline.runtime import artifact, job, travel
from pipeline.runtime.artifact import versions as here
from pipeline.runtime.parallel import CLUSTER, Task
from pipeline.runtime.progress import Progress
from pipeline.runtime.travel import Input

GPUS = "FOVEA_CLUSTER_GPUS"  # of a job that can use one
ANSWER = 5.0  # seconds that an address has to answer
READY = 120.0  # seconds that a node has to start a process
LOSSES = 5  # of one job: more than that many nodes are not lost by chance
LEFT_OUT = {"__pycache__", "recipes"}  # of our packages: no job reads them
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
MESA = {"LP_NUM_THREADS": "0"}  # as in processes on one machine


def check() -> None:
    """Raise FoveaError if the cluster does not answer."""
    with _connected():
        pass


def run(tasks: Sequence[Task], label: str, progress: Progress) -> None:
    """Do every task on the cluster.

    Raises:
        FoveaError: a task failed, or the cluster cannot do it. The files of the others that have
            reached the head are kept.
    """
    if not tasks:
        return
    with _connected():
        _check_nodes()
        jobs = [_Job(task) for task in tasks]
        start, running = _Starter(), dict[Any, _Job]()
        try:
            while left := [job for job in jobs if not job.ended]:
                # Few more than can run, since their inputs are in the head's memory.
                for job in left[: 2 * int(ray.cluster_resources().get("CPU", 1))]:
                    if job not in running.values():
                        running[start(job.task)] = job
                # It does not wait: in Ray, a signal would become an exit status of 1.
                ready, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
                for updates in ready:
                    if not _receive(updates, running[updates], label):
                        del running[updates]
                        start.forget([path for job in running.values() for path in job.task.reads])
                progress.reach(sum(job.units for job in jobs))
                if not ready:
                    time.sleep(0.05)
        finally:
            for updates in running:
                with contextlib.suppress(RayError):
                    ray.cancel(updates, force=True)


@dataclass(eq=False)
class _Job:
    """A task, and how far it is."""

    task: Task
    units: int = 0
    losses: int = 0
    ended: bool = False


def _receive(updates: Any, job: _Job, label: str) -> bool:
    """Take the next update of a running job; whether it runs on."""
    try:
        update = ray.get(next(updates))
    except (RayTaskError, RuntimeEnvSetupError) as error:
        print(error, file=sys.stderr)
        raise FoveaError(f"{label}: a job could not start (Ray's message is above)") from error
    except (RayError, StopIteration) as error:  # its node or its process is lost
        reason = f"a node or its process was lost ({brief(error, 120) or 'it ended'})"
        job.units, job.losses = 0, job.losses + 1
        if job.losses == LOSSES:
            raise FoveaError(f"{label}: {reason}, {LOSSES} times; see Ray's logs there") from error
        print(f"note: {label}: {reason}; its job starts again from its files", file=sys.stderr)
        return False
    travel.write(update.parcel, job.task.writes)
    job.units, job.ended = job.units + update.units, update.ended
    if update.error:
        raise FoveaError(update.error)
    if update.trace:
        print(update.trace, file=sys.stderr)
        raise FoveaError(f"{label}: a job failed (its traceback is above)")
    return not job.ended


@ray.remote(max_retries=0, num_returns="streaming")
def _work(task: Task, *arguments: Any) -> Iterator[job.Update]:
    """A job; a lost one is not retried by Ray, which would begin with the same files again."""
    yield from job.work(task, *arguments, get=ray.get)


class _Starter:
    """Sends tasks to the cluster, and each input once."""

    def __init__(self) -> None:
        self._versions = here()
        self._gpus = _gpus()
        self._inputs: dict[Path, tuple[str, Any]] = {}  # digest, and reference to its bytes

    def __call__(self, task: Task) -> Any:
        """The updates of a task that has been sent."""
        inputs, moved = [], {}
        for path in task.reads:
            if path not in self._inputs:
                digest, pieces = travel.read_input(path)
                self._inputs[path] = digest, ray.put(pieces)
            digest, reference = self._inputs[path]
            if path.is_absolute():  # a committed encoder
                moved[path] = Path("committed", digest[:16], path.name)
            inputs.append((Input(moved.get(path, path), digest), reference))
        begun = travel.everything(task.writes)
        started = _work.options(
            num_cpus=1, num_gpus=self._gpus if task.gpu else 0, scheduling_strategy="SPREAD"
        )
        return started.remote(_moved(task, moved), inputs, begun, self._versions)

    def forget(self, needed: Collection[Path]) -> None:
        """Free the inputs of ended jobs."""
        self._inputs = {path: self._inputs[path] for path in needed if path in self._inputs}


def _moved(task: Task, places: Mapping[Path, Path]) -> Task:
    """A task whose fields name other places."""
    values = {field.name: getattr(task, field.name) for field in fields(task)}
    changed = {k: places[v] for k, v in values.items() if isinstance(v, Path) and v in places}
    return replace(task, **changed)


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Connect to the cluster; in the end disconnect, which ends all our processes there."""
    address = os.environ[CLUSTER]
    _check_answer(address)
    handler = signal.getsignal(signal.SIGTERM)
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder, "code.zip")
        code.write_bytes(_code())
        try:
            ray.init(
                address,
                runtime_env={"working_dir": str(code), "env_vars": THREADS | MESA},
                logging_level=logging.ERROR,
                log_to_driver=False,  # Ray's own pages about a lost node; jobs send their errors
            )
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise FoveaError(f"{CLUSTER}: {address}: {brief(error, 500)}") from error
    signal.signal(signal.SIGTERM, handler)  # Ray has set its own
    try:
        yield
    finally:
        ray.shutdown()


def _check_answer(address: str) -> None:
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or "/" in host or not port.isdigit():
        raise FoveaError(
            f"{CLUSTER}: {address}, must be auto or host:port, as `ray start --head` prints it"
        )
    try:
        socket.create_connection((host, int(port)), ANSWER).close()
    except (OSError, OverflowError) as error:
        raise FoveaError(
            f"{CLUSTER}: {address} does not answer ({brief(error)}); start Ray there, or unset "
            f"{CLUSTER}"
        ) from error


def _code() -> bytes:
    """A zip of our packages, and of the modules in the working folder, such as own games.

    Equal code gives equal bytes, which Ray sends once.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        own = {path.name: path for path in Path().glob("*.py")}
        ours = {
            path.relative_to(CODE).as_posix(): path
            for package in PACKAGES
            for path in (CODE / package).rglob("*")
            if path.is_file() and not LEFT_OUT.intersection(path.relative_to(CODE).parts)
        }
        for name, path in sorted((own | ours).items()):
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _check_nodes() -> None:
    """Raise FoveaError, naming the node, if one has other versions of Python or packages."""
    cloudpickle.register_pickle_by_value(artifact)  # the node may not be able to import it
    try:
        versions: Any = ray.remote(artifact.versions)
        nodes = {
            versions.options(
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            ).remote(): f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            for node in _nodes()
        }
    finally:
        cloudpickle.unregister_pickle_by_value(artifact)
    for answer, name in nodes.items():
        try:
            wrong = job.unlike(here(), ray.get(answer, timeout=READY))
        except GetTimeoutError as error:
            raise FoveaError(f"{name}: no answer within {READY:.0f} s; remove it") from error
        except (NodeDiedError, TaskUnschedulableError):  # it has just left
            continue
        except RayError as error:
            raise FoveaError(f"{name}: {brief(error, 500)}; remove it, or mend it") from error
        if wrong:
            raise FoveaError(f"{name} {wrong}")


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _gpus() -> float:
    """The GPUs of a job: FOVEA_CLUSTER_GPUS, by default one if any node has one."""
    most = max(node["Resources"].get("GPU", 0.0) for node in _nodes())
    text = os.environ.get(GPUS) or str(min(most, 1.0))
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= most or (number > 1 and number % 1):
        raise FoveaError(
            f"{GPUS}: {text}, must be a part of 1, or a whole number to {most:.0f}, the most GPUs "
            "of a node"
        )
    return number
