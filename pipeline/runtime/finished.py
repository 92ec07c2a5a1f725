"""Finished work is kept until DVC has recorded it, by hard links, which take no space.

DVC empties the out of a stage before it runs it. Where DVC is killed between the end of a stage and
`dvc.lock`, it runs the stage again, which then has to find its work.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datasets.errors import FoveaError
from datasets.sealed import remove_sealed
from pipeline.runtime.artifact import ROOT, open_artifact
from pipeline.runtime.record import ATTEMPTS

FINISHED = "finished"  # in a stage's folder of progress: the artifact, below its label
LOCK = Path("dvc.lock")


def keep(folder: Path, out: Path, label: str) -> None:
    """Keep the sealed folder `out`, and forget what the same stage instance had finished before."""
    for other in folder.parent.glob(f"{folder.name[:-16]}{'[0-9a-f]' * 16}/{FINISHED}"):
        shutil.rmtree(other)
    temporary = folder / f"{FINISHED}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(out, temporary / label, copy_function=os.link)
        temporary.rename(folder / FINISHED)
    except OSError:  # a file system without hard links: then nothing is kept
        shutil.rmtree(temporary, ignore_errors=True)


def take(folder: Path, out: Path, label: str) -> dict[str, Any] | None:
    """Put finished work into `out` where its artifact is gone, and give its metrics.

    What is damaged is forgotten, with a note.
    """
    if not is_ahead(folder, label):
        return None
    try:
        done = open_artifact(label, folder / FINISHED)
    except FoveaError as error:
        print(f"note: {error.args[0].partition(';')[0]}, so it is made again", file=sys.stderr)
        shutil.rmtree(folder / FINISHED)
        return None
    shutil.rmtree(out)
    shutil.copytree(done.folder, out, copy_function=os.link)
    return dict(done.manifest["metrics"])


def is_ahead(folder: Path, label: str) -> bool:
    """Whether there is finished work, and its artifact is gone."""
    return (folder / FINISHED).exists() and not (ROOT / label).exists()


def forget_recorded(work: Path) -> None:
    """Forget all that was finished before DVC last wrote `dvc.lock`."""
    if LOCK.exists():
        for copy in work.glob(f"*/{FINISHED}"):
            if copy.stat().st_mtime < LOCK.stat().st_mtime:
                shutil.rmtree(copy.parent, ignore_errors=True)


def clear(folder: Path, more_of: Iterable[str]) -> None:
    """Delete the progress behind a published artifact, but not what was finished.

    With `more_of`, all of it is kept for a run that adds to it.
    """
    remove_sealed(folder / ATTEMPTS)
    if more_of:
        return
    if not (folder / FINISHED).exists():
        shutil.rmtree(folder)
        return
    for path in folder.iterdir():
        if path.is_dir() and path.name != FINISHED:
            shutil.rmtree(path)
        elif path.is_file() and not path.name.lstrip(".").startswith("record-"):
            path.unlink()
