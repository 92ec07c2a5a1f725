"""The ledger: `python -m pipeline.results` renders RESULTS.md from the measured seeds.

`python -m pipeline.results add POLICY [--note TEXT]` first keeps the scores of an evaluation in
`artifacts/` (or in another clone's, `--artifacts PATH`), one file a seed, to be committed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datasets.files import write_atomic
from pipeline.artifact import ROOT
from pipeline.ledger.claims import read_claims
from pipeline.ledger.measured import add, read_measured
from pipeline.ledger.render import render
from pipeline.stage import told_plainly

RESULTS = Path("RESULTS.md")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.results", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    adding = commands.add_parser("add", help="keep the scores of an evaluation")
    adding.add_argument("policy")
    adding.add_argument("--note", default="", help="what a reader of the ledger must know")
    adding.add_argument("--artifacts", type=Path, default=ROOT, help="where it was evaluated")
    arguments = parser.parse_args()
    with told_plainly():
        if arguments.command == "add":
            for path in add(arguments.policy, arguments.note, root=arguments.artifacts):
                print(path, file=sys.stderr)
        write_atomic(RESULTS, render(read_claims(), read_measured()).encode())
    print(RESULTS, file=sys.stderr)


if __name__ == "__main__":
    main()
