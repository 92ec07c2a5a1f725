"""Run every benchmark, print one table and write `artifacts/bench.json`: `python -m bench [NAME…]`.

A ratio is the median over interleaved runs of (ours, baseline) on the same work, so that a busy
machine slows both. Against the authors' own code: `python -m bench.released PATH`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench import (
    apart,
    collect,
    error_map,
    kept,
    mae,
    multimae,
    rainbow,
    render,
    sac,
    saliency,
    shards,
)

BENCHES = {
    "collect": collect.run,
    "render": render.run,
    "shards": shards.run,
    "mae": mae.run,
    "multimae": multimae.run,
    "error_map": error_map.run,
    "rainbow": rainbow.run,
    "sac": sac.run,
    "saliency": saliency.run,
}


@dataclass(frozen=True)
class Target:
    """A line of the table: which of a benchmark's figures are meant, and what they should reach.

    `what` may name figures in braces.
    """

    bench: str
    what: str
    ours: str
    peer: str
    ratio: str
    least: float
    of_ratio: bool = True  # or of our own figure


WIDTH = 62  # of the table's first column
WARM = f"error_map_{error_map.WARM}"  # `python -m bench.error_map 9600`, too long for every run
KEPT_WARM = apart.KEPT / "error-map-times.json"  # where it was not run here
TARGETS = [
    Target(
        "mae",
        "MAE step, ms of processor",
        "patch_8_ours_ms",
        "patch_8_plain_ms",
        "patch_8_ratio",
        2.0,
    ),
    Target("multimae", "MultiMAE step, ms of processor", "ours_ms", "plain_ms", "ratio", 2.0),
    Target(
        "multimae",
        "the same on two threads, ms on the clock",
        "two_ours_ms",
        "two_plain_ms",
        "two_ratio",
        2.0,
    ),
    *(
        Target(
            "error_map",
            f"error map, {game}, empty cache, ms",
            f"{game}_ours_ms",
            f"{game}_plain_ms",
            f"{game}_ours_ratio",
            error_map.FORGETFUL_TARGET,
        )
        for game in error_map.TARGETS
    ),
    *(
        Target(
            WARM,
            f"error map, {game}, {{remembered_frames:,}} frames seen, "
            f"{{{game}_hit_rate:.0%}} cache hits, ms",
            f"{game}_remembering_ms",
            f"{game}_plain_ms",
            f"{game}_remembering_ratio",
            least,
        )
        for game, least in error_map.TARGETS.items()
    ),
    Target(
        "rainbow",
        "Rainbow on tokens, updates/s",
        "tokens_updates_per_second",
        "tokens_plain_per_second",
        "tokens_ratio",
        100.0,
        of_ratio=False,
    ),
    Target(
        "rainbow",
        "the same, two seeds on two cores",
        "two_seeds_updates_per_second",
        "two_seeds_plain_per_second",
        "two_seeds_ratio",
        100.0,
        of_ratio=False,
    ),
    Target(
        "render",
        "Meta-World rendered by a process a core ({cores}), frames/s",
        "all_cores_per_second",
        "fast_per_second",
        "all_cores_ratio",
        1.6,  # of two cores, which share caches and memory
    ),
    Target(
        "sac",
        "SAC on cached latents, updates/s",
        "ours_per_second",
        "encoding_per_second",
        "encoding_ratio",
        10.0,
    ),
    *(
        Target(
            "saliency",
            f"student's saliency against PiCANet's, {what}, ms",
            f"{key}_student_ms",
            f"{key}_local_ms",
            f"{key}_student_ratio",
            30.0,
        )
        for what, key in (("labelling", "label_64"), ("acting", "act_64"))
    ),
]


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
    kept.keep(kept.OURS, figures)
    long = kept.held(kept.OURS).get(WARM) or kept.held(KEPT_WARM)[WARM]
    print("\n".join(table(figures | {WARM: long["figures"]})))
    how = f"python -m bench.error_map {error_map.WARM}"
    machine, at = long["machine"]["processor"], long["commit"]
    print(f"error maps, {error_map.WARM:,} frames seen: at {at} on {machine}, `{how}`")
    for what, target, where in apart.lines():
        print(f"{what:<{WIDTH + 17}}{target:>17}  {where}")


def table(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Ours, the peer's, their ratio, the target and whether it is met, for what was measured."""
    lines = [f"{'':<{WIDTH}}{'ours':>9}{'peer':>9}{'ratio':>8}{'target':>9}  met"]
    for target in TARGETS:
        if target.bench not in figures:
            continue
        result = figures[target.bench]
        ours, peer, ratio = (result[key] for key in (target.ours, target.peer, target.ratio))
        met = (ratio if target.of_ratio else ours) >= target.least
        least = f"{target.least:g}{'x' if target.of_ratio else ''}"
        numbers = f"{ours:>9.1f}{peer:>9.1f}{ratio:>8.2f}{least:>9}  {'yes' if met else 'no'}"
        lines.append(f"{target.what.format(**result):<{WIDTH}}{numbers}")
    return lines


if __name__ == "__main__":
    main()
