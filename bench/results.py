"""Files of results: the figures of benchmarks, with machine, versions and commit.

They are `artifacts/bench.json` (ours) and `artifacts/peers.json` (against other people's code).
BENCH.md is rendered from copies in `bench/measured/` (`python -m bench.page`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.files import write_atomic
from pipeline.runtime.artifact import versions
from pipeline.runtime.record import commit, machine

OURS = Path("artifacts/bench.json")
PEERS = Path("artifacts/peers.json")


def write(path: Path, figures: Mapping[str, Any]) -> None:
    """Write the figures of one run, by benchmark or peer. Figures of others in the file stay."""
    entries = {n: one for n, one in read(path).items() if n not in figures and "figures" in one}
    where = {"machine": machine(), "versions": versions(), "commit": commit()}
    entries |= {name: {"figures": result, **where} for name, result in figures.items()}
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, (json.dumps(entries, indent=1) + "\n").encode())
    print(f"written to {path}")


def read(path: Path) -> dict[str, Any]:
    """The results of earlier runs; none if the file is damaged, as a benchmark can be run again."""
    with contextlib.suppress(OSError, ValueError):
        result = json.loads(path.read_text("utf-8"))
        return {name: one for name, one in result.items() if isinstance(one, dict)}
    return {}
