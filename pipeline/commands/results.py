"""`python -m pipeline.commands.results` renders RESULTS.md, docs/results and their figures from the
records.

`add LABEL` first adds the records of an artifact in `artifacts/` (or in another clone's,
`--artifacts PATH`), to be committed. `add policies/x` adds the seeds of an evaluation, `add
exams/x` the scores of a source of saliency, `add frames/x` the metrics of a collection, and `add
encoders/x --on frames/y` the scores of `python -m pipeline.commands.probe`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datasets.files import write_atomic
from pipeline.results.add import add
from pipeline.results.claims import read_papers
from pipeline.results.pages import pages
from pipeline.results.record import read_records
from pipeline.runtime.artifact import ROOT
from pipeline.runtime.stage import plain_errors


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.commands.results", description=__doc__
    )
    commands = parser.add_subparsers(dest="command")
    adding = commands.add_parser("add", help="add the records of an artifact")
    adding.add_argument("label", help="the artifact's label, such as policies/frostbite-spirl")
    adding.add_argument("--on", help="label of the frames or annotations it was measured on")
    adding.add_argument("--note", default="", help="differences from the recipe")
    adding.add_argument("--artifacts", type=Path, default=ROOT, help="the folder it was built in")
    options = parser.parse_args()
    with plain_errors():
        if options.command == "add":
            for path in add(options.label, options.on, options.note, root=options.artifacts):
                print(path, file=sys.stderr)
        for path, text in pages(read_papers(), read_records()).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, text.encode())
            print(path, file=sys.stderr)


if __name__ == "__main__":
    main()
