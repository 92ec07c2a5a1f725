"""What `make repro` does: check params.yaml, run `dvc repro`, and say what DVC keeps silent about.

A killed DVC can leave its lock file torn, and then refuses every run. With the disk of its cache
full it ends well, but what it built is in no cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from datasets.errors import FoveaError
from datasets.files import parse_json, read_json
from pipeline import params
from pipeline.config.yaml_file import read_yaml
from pipeline.runtime.parallel import cluster
from pipeline.runtime.process import die_with_parent
from pipeline.runtime.stage import plain_errors

TORN = Path(".dvc/tmp/rwlock")
LOCK = Path("dvc.lock")


def remove_torn_lock(path: Path = TORN) -> None:
    """Remove DVC's lock file where a kill has torn it and no DVC is at work in this folder."""
    try:
        parse_json(path.read_bytes())
    except FileNotFoundError:
        return
    except ValueError:
        if not any(map(_is_dvc, Path("/proc").glob("[0-9]*"))):
            path.unlink(missing_ok=True)
            print(f"note: {path}: torn by a DVC that was killed, so it is removed", file=sys.stderr)


def outs_not_in_cache(cache: Path, stages: Collection[str], lock: Path = LOCK) -> list[str]:
    """The outs of these stages that are there, but not in DVC's `cache`, or not every file of them.

    `dvc.lock` has stages of other recipes, too, and those that were never built here.
    """
    locked = read_yaml(lock).get("stages", {}) if lock.exists() else {}
    outs = [out for stage in stages for out in locked.get(stage, {}).get("outs", [])]
    return [
        out["path"]
        for out in outs
        if Path(out["path"]).exists() and not _is_cached(cache / "files/md5", out["md5"])
    ]


def _is_cached(cache: Path, md5: str) -> bool:
    place = cache / md5[:2] / md5[2:]
    if not place.is_file():
        return False
    if not md5.endswith(".dir"):
        return True
    try:
        return all(_is_cached(cache, file["md5"]) for file in read_json(place))
    except (FoveaError, LookupError, TypeError):
        return False


def _is_dvc(process: Path) -> bool:
    """Whether a process of /proc is a DVC at work in this folder."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        here = (process / "cwd").resolve() == Path.cwd()
    except OSError:  # it has ended, or is another user's
        return False
    return here and int(process.name) != os.getpid() and any(w.endswith(b"dvc") for w in words[:4])


def main() -> None:
    """The command line: arguments are those of `dvc repro`."""
    with plain_errors():
        entries = params.write_stamps()
        params.check_folders()
        if module := cluster():
            module.check()
        remove_torn_lock()
        dvc = [sys.executable, "-m", "dvc"]
        command = [*dvc, "repro", *sys.argv[1:]]
        if code := subprocess.run(command, check=False, preexec_fn=die_with_parent).returncode:
            sys.exit(code)
        cache = subprocess.run([*dvc, "cache", "dir"], capture_output=True, text=True, check=True)
        stages = [f"{stage}@{entry.name}" for entry in entries for stage in params.stages_of(entry)]
        if missing := outs_not_in_cache(Path(cache.stdout.strip()), [*stages, "report"]):
            raise FoveaError(
                f"{', '.join(missing)}: built, but not in DVC's cache, whose disk may be full; "
                "free some space and run `dvc commit -f`"
            )


if __name__ == "__main__":
    main()
