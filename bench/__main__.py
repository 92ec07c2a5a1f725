"""Run every benchmark, print one table and write `artifacts/bench.json`: `python -m bench [NAME…]`.

A ratio is the median over interleaved runs of (ours, baseline) on the same work, so that a busy
machine slows both. Against the authors' own code: `python -m bench.released PATH`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from bench import (
    collect,
    error_map,
    fixations,
    mae,
    masks,
    multimae,
    page,
    rainbow,
    render,
    results,
    sac,
    saliency,
    shards,
    top_down,
)
from bench.page import TARGETS, WARM, cells

BENCHES = {
    "collect": collect.run,
    "render": render.run,
    "shards": shards.run,
    "mae": mae.run,
    "multimae": multimae.run,
    "error_map": error_map.run,
    "rainbow": rainbow.run,
    "sac": sac.run,
    "masks": masks.run,
    "saliency": saliency.run,
    "top_down": top_down.run,
    "fixations": fixations.run,
}


WIDTH = 74  # of the table's first column
WARM_TIMES = page.MEASURED / "error-map-times.json"  # if it was not run on this machine


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
    results.write(results.OURS, figures)
    long = results.read(results.OURS).get(WARM) or results.read(WARM_TIMES)[WARM]
    print("\n".join(table(figures | {WARM: long["figures"]})))
    how = f"python -m bench.error_map {error_map.WARM}"
    machine, at = long["machine"]["processor"], long["commit"]
    print(f"error maps, {error_map.WARM:,} frames: at {at} on {machine}, `{how}`; more in BENCH.md")


def table(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Ours, the peer's, their ratio, the target and whether it is met, for what was measured."""
    lines = [f"{'':<{WIDTH}}{'ours':>9}{'peer':>9}{'ratio':>8}{'target':>9}  met"]
    for target in TARGETS:
        if target.bench in figures:
            what, unit, ours, peer, ratio, least, met = cells(target, dict(figures[target.bench]))
            name = f"{what}, {unit}"
            lines.append(f"{name:<{WIDTH}}{ours:>9}{peer:>9}{ratio:>8}{least:>9}  {met}")
    return lines


if __name__ == "__main__":
    main()
