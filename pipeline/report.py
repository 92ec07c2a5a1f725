"""Stage `report`: everything that params.yaml names -> one page and the numbers for DVC.

`python -m pipeline.report` writes `artifacts/report/index.html` (self-contained), `metrics.json`
(for `dvc metrics`) and `curves/<policy>.csv` (for `dvc plots`). It builds nothing: an artifact that
is not there is named on the page.
"""

import argparse
import sys

from pipeline import params
from pipeline.results.claims import read_papers
from pipeline.results.html import render
from pipeline.results.judged import Measured
from pipeline.results.measured import read_measured
from pipeline.results.predicted import read_predicted
from pipeline.results.probed import read_probed
from pipeline.results.render import fragment
from pipeline.runtime.artifact import ROOT
from pipeline.runtime.stage import told_plainly

OUT = ROOT / "report"


def main() -> None:
    """The command line."""
    argparse.ArgumentParser(prog="python -m pipeline.report", description=main.__doc__).parse_args()
    with told_plainly():
        tables = {
            table: {name: entry.resolved() for name, entry in entries.items()}
            for table, entries in params.load().tables.items()
        }
        ledger = fragment(read_papers(), Measured(read_measured(), read_probed(), read_predicted()))
        metrics = render(tables, ROOT, OUT, ledger=ledger)
    for name, values in metrics.items():
        mean, chance, above = (
            f"{values[key]:{sign}.1f} ({values[low]:{sign}.1f} to {values[high]:{sign}.1f})"
            for key, low, high, sign in (
                ("mean", "mean_low", "mean_high", ""),
                ("random_mean", "random_low", "random_high", ""),
                ("above_random", "above_random_low", "above_random_high", "+"),
            )
        )
        smoke = "; smoke: not a result" if values["smoke"] else ""
        print(f"{name}: mean {mean}, uniform random {chance}, difference {above}{smoke}")
    print(OUT / "index.html", file=sys.stderr)


if __name__ == "__main__":
    main()
