"""The steps of every stage: check, lock, work with resumption, publish, record.

A stage works in `artifacts/.work/<stage>-<name>-<fingerprint>/` because DVC empties a stage's out
before it runs. The fingerprint covers the entry, the inputs, the code and the versions. So work is
resumed only by a run that would have done the same. The folder's `out/` will be published;
everything else in the folder is progress.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.errors import FoveaError
from datasets.files import read_json, sha256_file, write_atomic
from datasets.sealed import MANIFEST, keep_if_sound, read_sealed, write_sealed
from pipeline import params
from pipeline.config import closure, tables
from pipeline.runtime import artifact, finished
from pipeline.runtime.artifact import ROOT, Artifact
from pipeline.runtime.parallel import cluster, explain, one_thread
from pipeline.runtime.process import TORCHRUN, interruptible, rank
from pipeline.runtime.record import RUNS, attempt, record

WORK = ROOT / ".work"


@dataclass(frozen=True)
class Stage:
    """One run of one stage instance."""

    name: str  # "collect"
    entry: tables.Entry
    inputs: dict[str, Artifact]  # key of the entry -> opened, checked artifact
    folder: Path  # progress; survives an interruption

    @property
    def out(self) -> Path:
        """The folder that becomes the artifact."""
        (self.folder / "out").mkdir(exist_ok=True)
        return self.folder / "out"

    @property
    def runs(self) -> Path:
        """The folder of TensorBoard logs, which are not a part of the artifact."""
        return RUNS / f"{self.name}-{self.entry.name}"


Run = Callable[[Stage], Mapping[str, Any]]  # writes stage.out, returns the metrics


def main(
    name: str,
    table: str,
    run: Run,
    *,
    publish_as: str | None = None,
    inputs: Callable[[tables.Entry], dict[str, str]] = tables.Entry.inputs,
    without: frozenset[str] = frozenset(),
    more_of: frozenset[str] = frozenset(),
    group: Callable[[tables.Entry], bool] = lambda entry: False,
) -> None:
    """The command line of a stage: `python -m pipeline.<name> <entry>`.

    `publish_as` is the folder in artifacts/ if it is not the table's. `without` names keys of the
    entry that don't change this stage's artifact. `more_of` names keys and inputs that only add to
    it (`seeds`): work done under other values of them is kept and used. `group` says of an entry
    whether torchrun may run it in several processes, of which the first publishes the artifact.
    """
    program = f"python -m {closure.module_of(name)}"
    parser = argparse.ArgumentParser(prog=program, description=run.__doc__)
    parser.add_argument("entry", help=f"the name of an entry of `{table}` in params.yaml")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # One thread gives the same bytes on any number of cores. Two threads take two thirds of the
    # time of one, but four and a half times as long beside another stage with two threads (MAE on
    # two cores), since waiting threads spin.
    one_thread()
    with plain_errors():
        if module := cluster():
            module.check()
        entry = params.entry_of(name, table, arguments.entry)
        if TORCHRUN in os.environ and not group(entry):
            raise FoveaError(f"{TORCHRUN}: set, but a stage is one process; run `{program}` alone")
        artifacts = {key: artifact.open_artifact(label) for key, label in inputs(entry).items()}
        decisive = [source for key, source in artifacts.items() if key not in more_of]
        code = closure.stamp(
            name, entry, [module for source in artifacts.values() for module in modules_in(source)]
        )
        finished.forget_recorded(WORK)
        print_ = fingerprint(name, entry.resolved(without | more_of), decisive, code)
        label = f"{publish_as or table}/{entry.name}"
        if rank():
            folder = WORK / f"{name}-{entry.name}-{print_}"
            folder.mkdir(parents=True, exist_ok=True)
            if not finished.is_ahead(folder, label):
                run(Stage(name, entry, artifacts, folder))
            return
        with workspace(f"{name}-{entry.name}", print_) as folder:
            began, earlier = time.time(), attempt(folder)
            stage = Stage(name, entry, artifacts, folder)
            metrics = finished.take(folder, stage.out, label)
            if metrics is None:
                metrics = inherit_simulated(run(stage), artifacts.values())
                digests = {source.label: source.digest for source in artifacts.values()}
                resolved = entry.resolved(without)
                artifact.seal(stage.out, label, entry=resolved, inputs=digests, metrics=metrics)
                check_unchanged(stage, code, without)
                if not more_of:  # with it, all progress is kept anyway
                    finished.keep(folder, stage.out, label)
            artifact.publish(stage.out, label)
            digest = sha256_file(ROOT / label / MANIFEST)
            first = folder / f"record-{digest[:16]}.json"
            # Everything was finished before: the record is of the run that did it.
            if keep_if_sound(first):
                write_atomic(RUNS / f"{name}-{entry.name}.json", read_sealed(first))
            else:
                write_sealed(first, record(name, entry.name, began, earlier, digest))
            finished.clear(folder, more_of)
    print(f"{ROOT / label}: {', '.join(f'{k} {v}' for k, v in metrics.items())}", file=sys.stderr)


def check_unchanged(stage: Stage, code: str, without: frozenset[str]) -> None:
    """Raise FoveaError, and publish nothing, if code, entry or inputs have changed meanwhile.

    DVC would record the changed ones with an artifact that was made of the earlier ones.
    """
    files = closure.changed_files(code)
    entry = stage.entry
    now = params.entry_now(entry.table, entry.name)
    if now is None or now.resolved(without) != entry.resolved(without):
        files.append(f"{params.PARAMS} ({entry.table}.{entry.name})")
    for source in stage.inputs.values():
        path = source.folder / MANIFEST
        if not path.is_file() or sha256_file(path) != source.digest:
            files.append(str(path))
    if files:
        raise FoveaError(
            f"{', '.join(files)}: changed while the stage worked, so nothing was published; "
            "run the stage again (after undoing the change, it goes on from its work)"
        )


def inherit_simulated(metrics: Mapping[str, Any], inputs: Iterable[Artifact]) -> dict[str, Any]:
    """The metrics, with `simulated_clicks` if an input has them."""
    simulated = any(part.manifest.get("metrics", {}).get("simulated_clicks") for part in inputs)
    return {**metrics, **({"simulated_clicks": True} if simulated else {})}


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn an error that the user can correct into one message and exit status 1."""
    interruptible()
    try:
        yield
    except (FoveaError, OSError, MemoryError, RuntimeError) as error:  # OSError: disk full
        if message := explain(error):
            sys.exit(f"error: {message}")
        raise
    except KeyboardInterrupt:
        sys.exit("interrupted; run the stage again to go on from here")


def modules_in(source: Artifact) -> list[str]:
    """The modules that are needed to load an artifact, and the source of saliency in it.

    They are in no stamp, but in the fingerprint: work done with another version of them is not
    resumed.
    """
    paths = [file for file in source.files if Path(file).name == "config.json"]
    headers = [read_json(source.folder / path) for path in paths]
    return [module for header in headers for module in closure.modules_of(header)]


def fingerprint(stage: str, entry: Mapping[str, Any], inputs: Iterable[Artifact], code: str) -> str:
    """Sixteen hex digits over everything that decides a run's result; `code` is its stamp."""
    decides = {
        "stage": stage,
        "entry": entry,
        "inputs": {source.label: source.digest for source in inputs},
        "code": code,
        "versions": artifact.versions(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def workspace(label: str, print_: str) -> Iterator[Path]:
    """The locked folder of one stage instance's progress.

    Raises:
        FoveaError: another process is at work on the same instance.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / f"{label}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FoveaError(
                f"{WORK / label}: another process is at work on it; wait for it, or stop it and "
                "run the stage again"
            ) from None
        folder = WORK / f"{label}-{print_}"
        pattern = f"{label}-{'[0-9a-f]' * 16}"
        others = (work for work in WORK.glob(pattern) if not (work / finished.FINISHED).exists())
        if not folder.exists() and any(others):  # perhaps hours of work
            print(
                f"note: {label}: the entry, its inputs or the code changed, so this starts again; "
                f"earlier progress stays in {WORK / label}-* until you remove it",
                file=sys.stderr,
            )
        folder.mkdir(exist_ok=True)
        yield folder
