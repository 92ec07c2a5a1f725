"""What every stage has in common: check, lock, work where it can resume, publish, record.

A stage works in `artifacts/.work/<stage>-<name>-<fingerprint>/` because DVC empties a stage's out
before it runs. The fingerprint covers the entry, the inputs, the code and the versions: work is
only ever resumed by a run that would have done the same. What is to be published lies in the
folder's `out/`; everything beside it is progress.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datasets.errors import FoveaError
from datasets.files import sha256_file, write_atomic
from pipeline import params
from pipeline.config import closure, tables
from pipeline.runtime import artifact, attempts
from pipeline.runtime.artifact import ROOT, Artifact
from pipeline.runtime.parallel import die_with_parent, explain, one_thread, uses_gpu

WORK = ROOT / ".work"
RUNS = ROOT / ".runs"
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # that change speed and rounding


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
        """Where TensorBoard logs and the like go: beside the artifact, never in it."""
        return RUNS / f"{self.name}-{self.entry.name}"


Run = Callable[[Stage], Mapping[str, Any]]  # does the work in stage.out, returns the metrics


def main(
    name: str,
    table: str,
    run: Run,
    *,
    publish_as: str | None = None,
    inputs: Callable[[tables.Entry], dict[str, str]] = tables.Entry.inputs,
    without: frozenset[str] = frozenset(),
    more_of: frozenset[str] = frozenset(),
) -> None:
    """The command line of a stage: `python -m pipeline.<name> <entry>`.

    `publish_as` is the folder in artifacts/ where it is not the table's. `without` names keys of
    the entry that don't change what this stage makes; `more_of` those, and inputs, that only add to
    it (`seeds`): work done under other values of them is kept and used.
    """
    parser = argparse.ArgumentParser(prog=f"python -m pipeline.{name}", description=run.__doc__)
    parser.add_argument("entry", help=f"the name of an entry of `{table}` in params.yaml")
    arguments = parser.parse_args()
    die_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # The same bytes whatever the number of cores. And two threads take two thirds of the time of
    # one, but four and a half times as long where another stage has two of its own (MAE on two
    # cores): they spin.
    one_thread()
    with told_plainly():
        known = params.state()
        entry = params.entry(table, arguments.entry, known)
        opened = {key: artifact.open_artifact(label) for key, label in inputs(entry).items()}
        resolved = entry.resolved(without)
        digests = {a.label: a.digest for a in opened.values()}
        words = [word for a in opened.values() for word in carried(a)]
        settled = {a.label: a.digest for key, a in opened.items() if key not in more_of}
        print_ = fingerprint(name, entry.resolved(without | more_of), settled, words)
        with workspace(f"{name}-{entry.name}", print_) as folder:
            params.remember(known)
            began = time.time()
            stage = Stage(name, entry, opened, folder)
            metrics = handed_down(run(stage), opened.values())
            label = f"{publish_as or table}/{entry.name}"
            artifact.seal(stage.out, label, entry=resolved, inputs=digests, metrics=metrics)
            artifact.publish(stage.out, label)
            made = sha256_file(ROOT / label / artifact.MANIFEST)
            told = folder / f"record-{made[:16]}.json"
            if told.exists():  # all of it was there already: that is of the run that made it
                write_atomic(RUNS / f"{name}-{entry.name}.json", told.read_bytes())
            else:
                write_atomic(told, record(name, entry.name, began, attempts.spent(folder), made))
            if more_of:
                attempts.forget(folder)
            else:
                shutil.rmtree(folder)
    print(f"{ROOT / label}: {', '.join(f'{k} {v}' for k, v in metrics.items())}", file=sys.stderr)


def handed_down(metrics: Mapping[str, Any], inputs: Iterable[Artifact]) -> dict[str, Any]:
    """The metrics, and in them whether anything that this was made from has simulated clicks."""
    simulated = any(made.manifest.get("metrics", {}).get("simulated_clicks") for made in inputs)
    return {**metrics, **({"simulated_clicks": True} if simulated else {})}


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
    """What the user can put right is one message and exit status 1, without a traceback."""
    try:
        yield
    except (FoveaError, OSError) as error:  # OSError: disk full, no permission
        sys.exit(f"error: {explain(error)}")
    except KeyboardInterrupt:
        sys.exit("interrupted; run the stage again to go on from here")


def carried(made: Artifact) -> list[str]:
    """The modules that it takes to load an artifact, or the source of saliency within it."""
    headers = [file for file in made.files if Path(file).name == "config.json"]
    texts = [(made.folder / header).read_text() for header in headers]
    return [word for text in texts for word in closure.carried(json.loads(text))]


def fingerprint(
    stage: str, entry: Mapping[str, Any], inputs: Mapping[str, str], words: Iterable[str]
) -> str:
    """Sixteen hex digits over everything that decides what this run makes: `words` are the modules
    that its inputs need when they are loaded.
    """
    decides = {
        "stage": stage,
        "entry": entry,
        "inputs": dict(sorted(inputs.items())),
        "code": closure.digest(f"pipeline.{stage}", [*closure.words(stage, entry), *words]),
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
                "run again"
            ) from None
        folder = WORK / f"{label}-{print_}"
        pattern = f"{label}-{'[0-9a-f]' * 16}"
        if not folder.exists() and any(WORK.glob(pattern)):  # hours of work, it may be
            print(
                f"note: {label}: the entry, its inputs or the code changed, so this begins anew; "
                f"earlier progress stays in {WORK / label}-* until you remove it",
                file=sys.stderr,
            )
        folder.mkdir(exist_ok=True)
        attempts.begin(folder)
        try:
            yield folder
        except BaseException:
            with contextlib.suppress(OSError):  # a full disk, say, which is what is to be told
                attempts.end(folder)
            raise


def record(
    stage: str, name: str, began: float, spent: tuple[float, int], digest: str | None = None
) -> bytes:
    """Keep what varies from run to run beside the artifacts: time, memory, commit, machine.

    `spent` is what `attempts.spent` says: seconds and runs, this one and those it went on from.
    `digest` says which artifact was made, for others of its name may come to stand in its place.
    """
    RUNS.mkdir(parents=True, exist_ok=True)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seen = {
        "stage": stage,
        "name": name,
        "started": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "wall_seconds": round(spent[0], 1),
        "peak_memory_bytes": max(u.ru_maxrss for u in usage) * 1024,  # of the largest process
        "resumed": spent[1] - 1,
        "digest": digest,
        "commit": commit(),
        "machine": machine(),
    }
    content = (json.dumps(seen, indent=1) + "\n").encode()
    write_atomic(RUNS / f"{stage}-{name}.json", content)
    return content


def machine() -> dict[str, Any]:
    """Processor, what it computes with, cores, GPU: what a figure has to be read with."""
    described: dict[str, Any] = {
        "processor": platform.machine(),
        "instructions": [],
        "cores": os.cpu_count(),
        "gpu": None,
    }
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        told = {key.strip(): value.strip() for key, _, value in (li.partition(":") for li in lines)}
        described["processor"] = told.get("model name", described["processor"])
        flags = told.get("flags", "").split()
        described["instructions"] = [name for name in INSTRUCTIONS if name in flags]
    if Path("/proc/driver/nvidia").exists() or uses_gpu():  # torch takes seconds to import
        import torch

        if torch.cuda.is_available():
            described["gpu"] = torch.cuda.get_device_name()
    return described


def commit() -> str:
    """The commit at work, `+` appended where tracked files differ from it; "" outside git.

    What is built is recorded anyway, so params.yaml and dvc.lock may differ.
    """

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD")
    others = (":/", ":(top,exclude)params.yaml", ":(top,exclude)dvc.lock")
    return head + ("+" if head and git("status", "--porcelain", "-uno", "--", *others) else "")
