"""The record of a run: time, memory, commit, machine. These vary from run to run, so they are
stored beside the artifacts and not in them.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datasets import sealed
from datasets.files import parse_json
from pipeline.runtime.artifact import ROOT
from pipeline.runtime.parallel import uses_gpu

RUNS = ROOT / ".runs"
ATTEMPTS = "attempts.json"  # in a stage's folder of progress
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # they change speed and rounding


def attempt(folder: Path) -> tuple[float, int]:
    """Record that a run begins in `folder`; returns the seconds and the number of earlier runs.

    A run that did not publish counts until its last write in the folder.
    """
    path = folder / ATTEMPTS
    seconds, runs = 0.0, 0
    if sealed.keep_if_sound(path):
        last = parse_json(sealed.read_sealed(path))
        wrote = max(file.stat().st_mtime for file in folder.rglob("*"))
        seconds, runs = last["seconds"] + max(0.0, wrote - last["began"]), last["runs"]
    begins = {"seconds": seconds, "runs": runs + 1, "began": time.time()}
    sealed.write_sealed(path, (json.dumps(begins) + "\n").encode())
    return seconds, runs


def record(
    stage: str,
    name: str,
    began: float,
    earlier: tuple[float, int] = (0.0, 0),
    digest: str | None = None,
) -> bytes:
    """Write the record of a run from `began` until now; returns its bytes.

    `earlier` is the result of `attempt`, on the runs that this one continued. `digest` is that of
    the artifact, since another one may replace it under the same name.
    """
    RUNS.mkdir(parents=True, exist_ok=True)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds, runs = earlier
    content = {
        "stage": stage,
        "name": name,
        "started": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "wall_seconds": round(seconds + time.time() - began, 1),
        "peak_memory_bytes": max(u.ru_maxrss for u in usage) * 1024,  # of the largest process
        "resumed": runs,
        "digest": digest,
        "commit": commit(),
        "machine": machine(),
    }
    path = RUNS / f"{stage}-{name}.json"
    sealed.write_manifest(path, content)
    return path.read_bytes()


def machine() -> dict[str, Any]:
    """Processor, instructions, cores and GPU, with which timings must be read."""
    result: dict[str, Any] = {
        "processor": platform.machine(),
        "instructions": [],
        "cores": os.cpu_count(),
        "gpu": None,
    }
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        parts = (line.partition(":") for line in lines)
        fields = {key.strip(): value.strip() for key, _, value in parts}
        result["processor"] = fields.get("model name", result["processor"])
        flags = fields.get("flags", "").split()
        result["instructions"] = [name for name in INSTRUCTIONS if name in flags]
    if Path("/proc/driver/nvidia").exists() or uses_gpu():  # torch takes seconds to import
        import torch

        if torch.cuda.is_available():
            result["gpu"] = torch.cuda.get_device_name()
    return result


def commit() -> str:
    """The current commit, with `+` appended if tracked files differ from it.

    It is "unknown" without git, outside of a checkout, or in one that git does not trust. A
    difference of params.yaml or dvc.lock does not count, since the entry is recorded anyway.
    """

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
        except OSError:
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD")
    others = (":/", ":(top,exclude)params.yaml", ":(top,exclude)dvc.lock")
    if not head:
        return "unknown"
    return head + ("+" if git("status", "--porcelain", "-uno", "--", *others) else "")
