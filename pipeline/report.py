"""Stage `report`: all artifacts of params.yaml -> one page, and metrics for DVC.

`python -m pipeline.report` writes `artifacts/report/index.html` (self-contained),
`scores/<policy>.json` (for `dvc metrics`) and `curves/<policy>.csv` (for `dvc plots`). It builds
nothing: the page lists missing artifacts.
"""

import argparse
import sys

from pipeline import params
from pipeline.results.claims import read_papers
from pipeline.results.html import render
from pipeline.results.pages import against_papers
from pipeline.results.record import read_records
from pipeline.runtime.artifact import ROOT
from pipeline.runtime.stage import plain_errors

OUT = ROOT / "report"


def main() -> None:
    """The command line."""
    argparse.ArgumentParser(prog="python -m pipeline.report", description=main.__doc__).parse_args()
    with plain_errors():
        tables = {
            table: {name: entry.resolved() for name, entry in entries.items()}
            for table, entries in params.load().tables.items()
        }
        papers = against_papers(read_papers(), read_records())
        metrics = render(tables, ROOT, OUT, papers=papers)
    for name, values in metrics.items():
        mean, chance, above = (
            f"{values[key]:{sign}.1f} ({values[f'{key}_low']:{sign}.1f} to "
            f"{values[f'{key}_high']:{sign}.1f})"
            for key, sign in (("mean", ""), ("random", ""), ("above_random", "+"))
        )
        smoke = "; smoke test, not a result" if values["smoke"] else ""
        print(f"{name}: mean {mean}, uniform random {chance}, difference {above}{smoke}")
    print(OUT / "index.html", file=sys.stderr)


if __name__ == "__main__":
    main()
