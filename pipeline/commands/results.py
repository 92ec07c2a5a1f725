"""The ledger: `python -m pipeline.commands.results` renders RESULTS.md from what was measured.

`python -m pipeline.commands.results add POLICY [--note TEXT]` first keeps the scores of an
evaluation in `artifacts/` (or in another clone's, `--artifacts PATH`), one file a seed, to be
committed; `probe ENCODER` likewise what `python -m pipeline.commands.probe` found, `judge
ANNOTATIONS SOURCE` what `python -m pipeline.commands.judge` did, `frames NAME` what a learner came
to whose replay they are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datasets.files import write_atomic
from pipeline.results.claims import read_papers
from pipeline.results.collected import add_frames
from pipeline.results.curve import pictures
from pipeline.results.judged import Measured
from pipeline.results.measured import add, read_measured
from pipeline.results.predicted import add_predicted, read_predicted
from pipeline.results.probed import add_probe, read_probed
from pipeline.results.render import render
from pipeline.runtime.artifact import ROOT
from pipeline.runtime.stage import told_plainly

RESULTS = Path("RESULTS.md")


def page() -> str:
    """RESULTS.md as it follows from what is kept."""
    return render(read_papers(), Measured(read_measured(), read_probed(), read_predicted()))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.commands.results", description=__doc__
    )
    commands = parser.add_subparsers(dest="command")
    for command, names, what in (
        ("add", ["policy"], "keep the scores of an evaluation"),
        ("probe", ["encoder"], "keep the probes of an encoder"),
        ("judge", ["annotations", "source"], "keep the scores of a source of saliency"),
        ("frames", ["name"], "keep what the making of frames came to"),
    ):
        adding = commands.add_parser(command, help=what)
        for name in names:
            adding.add_argument(name)
        adding.add_argument("--note", default="", help="what a reader of the ledger must know")
        adding.add_argument("--artifacts", type=Path, default=ROOT, help="where it was made")
    arguments = parser.parse_args()
    with told_plainly():
        if arguments.command == "add":
            for path in add(arguments.policy, arguments.note, root=arguments.artifacts):
                print(path, file=sys.stderr)
        if arguments.command == "probe":
            kept = add_probe(arguments.encoder, arguments.note, root=arguments.artifacts)
            print(kept, file=sys.stderr)
        if arguments.command == "judge":
            kept = add_predicted(
                arguments.annotations, arguments.source, arguments.note, root=arguments.artifacts
            )
            print(kept, file=sys.stderr)
        if arguments.command == "frames":
            kept = add_frames(arguments.name, arguments.note, root=arguments.artifacts)
            print(kept, file=sys.stderr)
        for path, drawn in pictures(read_measured()).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, drawn.encode())
        write_atomic(RESULTS, page().encode())
    print(RESULTS, file=sys.stderr)


if __name__ == "__main__":
    main()
