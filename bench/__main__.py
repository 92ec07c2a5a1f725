"""Run every benchmark, print one table and write `artifacts/bench.json`: `python -m bench [NAME…]`.

A ratio is the median over interleaved runs of (ours, baseline) on the same work, so that a busy
machine slows both.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench import collect, error_map, mae, rainbow, shards
from datasets.files import write_atomic
from pipeline.artifact import versions
from pipeline.stage import machine

BENCHES = {
    "collect": collect.run,
    "shards": shards.run,
    "mae": mae.run,
    "error_map": error_map.run,
    "rainbow": rainbow.run,
}
RESULT = Path("artifacts/bench.json")


def main() -> None:
    """The command line."""
    names = sys.argv[1:] or list(BENCHES)
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    figures = {}
    for name in names:
        print(f"{name} …", flush=True)
        figures[name] = BENCHES[name]()
        for key, value in figures[name].items():
            print(
                f"  {key:<40} {value:.4g}" if isinstance(value, float) else f"  {key:<40} {value}"
            )
    RESULT.parent.mkdir(exist_ok=True)
    found = {"machine": machine(), "versions": versions(), "figures": figures}
    write_atomic(RESULT, (json.dumps(found, indent=1) + "\n").encode())
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
