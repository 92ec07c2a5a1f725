"""The whole exam: `make exam`, or `python -m tests.exam [--minutes 10] [--only NAME]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.exam.examine import BAD, Marks, examine, table
from tests.exam.readers import QUICK, WHOLE, prepare
from tests.pipeline.conftest import TINY, Project

# Beside the entries of TINY one with a learner.
LEARNER = """frames:
  reach: {env: metaworld/reach, source: replay, count: 4, streams: 1, steps: 60, learn_start: 50,
          hidden: 16}"""
MOST = 1_000  # flips of a reader
STAGES = (
    *(("collect", "breakout"), ("pretrain", "breakout-mae"), ("label", "breakout-error")),
    *(("fit", "breakout-student"), ("train", "breakout-spirl"), ("evaluate", "breakout-spirl")),
    *(("collect", "pacman"), ("annotate", "pacman"), ("exam", "pacman-error")),
)


def main() -> None:
    """Build a tiny project, flip bits in it, and print the table; status 1 where one was used."""
    parser = argparse.ArgumentParser(prog="python -m tests.exam", description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for the flips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers whose name holds this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    readers = [reader for reader in [*QUICK, *WHOLE] if arguments.only in reader.name]
    with tempfile.TemporaryDirectory() as temporary:
        project = Project(Path(temporary).resolve())
        (project.folder / "params.yaml").write_text(TINY.replace("frames:", LEARNER, 1))
        for stage, name in STAGES:
            print(f"{stage} {name}", file=sys.stderr, flush=True)
            project.built(stage, name)
        prepare(project.folder, readers)
        all_marks: list[Marks] = []
        end = time.monotonic() + 60 * arguments.minutes
        for left, reader in zip(range(len(readers), 0, -1), readers, strict=True):
            print(reader.name, file=sys.stderr, flush=True)
            share = (end - time.monotonic()) / left  # what the fast ones don't need, others get
            marks = examine(reader, project.folder, arguments.seed, flips=MOST, seconds=share)
            all_marks.append(marks)
    print(table(all_marks))
    sys.exit(any(marks.counts[outcome] for marks in all_marks for outcome in BAD))


if __name__ == "__main__":
    main()
