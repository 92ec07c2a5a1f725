"""The answers of several exams side by side: `python -m pipeline.commands.pictured EXAM...`

There is a row for each annotated frame and a column for each exam: the source's keypoints, or its
map if the exam has no keypoints (Wu et al. 2021, Figs. 8 and 9; ViSaRL, Fig. 7). A policy's column
is of its first seed. `EXAM=CAPTION` sets a column's caption. Writes `artifacts/.runs/pictured.png`,
or the file `--to`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from datasets.errors import FoveaError
from datasets.pictures import spread
from datasets.saliency import Indices
from pipeline import params
from pipeline.config.tables import Entry
from pipeline.parts.detection import on_frame
from pipeline.parts.labelled import Labelled, read_labelled, read_points
from pipeline.parts.pictured import PICTURES, Column, pictured
from pipeline.parts.sources import open_sources, points_of
from pipeline.runtime.artifact import open_artifact
from pipeline.runtime.record import RUNS
from pipeline.runtime.stage import plain_errors


def picture(exams: Sequence[tuple[Entry, str]], count: int = PICTURES) -> Image.Image:
    """The answers of exams, with captions, on `count` of their annotated frames.

    Raises FoveaError for exams on different annotations.
    """
    truths = {entry.keys.truth for entry, _ in exams}
    if len(truths) > 1:
        raise FoveaError(f"exams on {' and '.join(sorted(truths))}; name those of one")
    (label,) = truths
    truth = open_artifact(label)
    labelled = read_labelled(truth)
    rows = spread(len(labelled.indices), count)
    asked = any(entry.keys.keypoints for entry, _ in exams)
    objects = on_frame(read_points(truth, labelled)) if asked else None
    columns = [_column(entry, caption, labelled, rows) for entry, caption in exams]
    return pictured(labelled, rows, objects, columns)


def _column(entry: Entry, caption: str, labelled: Labelled, rows: Indices) -> Column:
    source = open_sources(open_artifact(entry.keys.by), labelled.frames)[0]
    indices = labelled.indices[rows]
    streams = labelled.frames.stream[indices]
    parts = [indices[streams == stream] for stream in np.unique(streams)]
    maps = np.concatenate([source.look(labelled.frames, part) for part in parts])
    if not entry.keys.keypoints:
        return Column(caption, maps=maps)
    points = points_of(source, labelled.frames.images[indices], maps, entry.keys.keypoints)
    return Column(caption, points=points)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.commands.pictured", description=__doc__
    )
    parser.add_argument("exams", nargs="+", metavar="EXAM", help="an entry of `exams`")
    parser.add_argument("--to", type=Path, default=RUNS / "pictured.png", help="the picture's file")
    parser.add_argument("--frames", type=int, default=PICTURES, help="how many rows")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with plain_errors():
        checked = params.load()
        named = [text.partition("=")[::2] for text in arguments.exams]
        exams = [(checked.entry("exams", name), words or name) for name, words in named]
        if arguments.frames < 1:
            raise FoveaError(f"--frames: {arguments.frames}, must be at least 1")
        arguments.to.parent.mkdir(parents=True, exist_ok=True)
        picture(exams, arguments.frames).save(arguments.to)
        print(arguments.to, file=sys.stderr)


if __name__ == "__main__":
    main()
