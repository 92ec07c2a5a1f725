"""BENCH.md from the figures in `bench/measured` and the records: `python -m bench.page`.

A ratio is the median over interleaved runs of (ours, baseline) on the same work.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import error_map, exact, half
from datasets.files import write_atomic
from pipeline.results.record import Record, read_records

BENCH, MEASURED = Path("BENCH.md"), Path("bench/measured")
WARM = f"error_map_{error_map.WARM}"  # `python -m bench.error_map 9600`, too long for every run
RATE, MS, STEP = "updates/s", "ms", "CPU ms a step"


@dataclass(frozen=True)
class Target:
    """A line of the table: the keys of a benchmark's figures, and their target.

    `what` may have keys of figures in braces, which are replaced by the figures.
    """

    file: str  # in `bench/measured`
    bench: str
    what: str
    unit: str
    ours: str
    peer: str
    ratio: str
    least: float = 0.0  # 0: no target
    of_ratio: bool = True  # whether the target is of the ratio, or of our own figure


TARGETS = [
    Target("pretraining-steps", "mae", "MAE step, batch 64, against timm with eager attention", MS,
           "patch_8_ours_ms", "patch_8_plain_ms", "patch_8_ratio", 2.0),
    Target("pretraining-steps", "multimae", "MultiMAE step, batch 64, against the same", MS,
           "ours_ms", "plain_ms", "ratio", 2.0),
    Target("pretraining-steps", "multimae", "the same on two threads", MS,
           "two_ours_ms", "two_plain_ms", "two_ratio", 2.0),
    *(Target("error-map-times", "error_map",
             f"error map, {game}, empty cache, against three passes", MS,
             f"{game}_ours_ms", f"{game}_plain_ms", f"{game}_ours_ratio", 2.0)
      for game in error_map.TARGETS),
    *(Target("error-map-times", WARM,
             f"error map, {game}, {{{game}_hit_rate:.0%}} cache hits, against three passes", MS,
             f"{game}_remembering_ms", f"{game}_plain_ms", f"{game}_remembering_ratio", least)
      for game, least in error_map.TARGETS.items()),
    Target("updates", "rainbow", "Rainbow on 50 tokens, against plain torch", RATE,
           "tokens_updates_per_second", "tokens_plain_per_second", "tokens_ratio", 100.0, False),
    Target("updates", "rainbow", "the same, two seeds on two cores", RATE,
           "two_seeds_updates_per_second", "two_seeds_plain_per_second", "two_seeds_ratio", 100.0,
           False),
    Target("updates", "rainbow", "Rainbow on pixels, against plain torch", RATE,
           "pixels_updates_per_second", "pixels_plain_per_second", "pixels_ratio"),
    Target("updates", "sac", "SAC on cached features, against encoding each batch", RATE,
           "ours_per_second", "encoding_per_second", "encoding_ratio", 10.0),
    Target("render", "render", "Meta-World frames, a process a core ({cores}), against one",
           "frames/s", "all_cores_per_second", "fast_per_second", "all_cores_ratio", 1.6),
    *(Target("saliency-times", "saliency", f"student's map against PiCANet's, {what}", MS,
             f"{key}_student_ms", f"{key}_local_ms", f"{key}_student_ratio", 30.0)
      for what, key in (("labelling, 64 px", "label_64"), ("acting, 64 px", "act_64"),
                        ("labelling, 224 px", "label_224"))),
    Target("fixation-times", "fixations", "shuffled AUC, exact, against 100 random splits", MS,
           "ours_ms", "splits_ms", "ratio", 50.0),
    Target("peers", "SPIRL release", "error map, empty cache, against SPIRL's release", MS,
           "map_ours_ms", "map_released_ms", "map_ratio", 2.0),
    Target("peers", "SPIRL release", "MAE step, bfloat16, against SPIRL's release", MS,
           "step_ours_ms", "step_released_ms", "step_ratio", 2.0),
    Target("peers", "Kaixhin", "DE-Rainbow against Kaixhin/Rainbow", RATE,
           "ours_per_second", "peer_per_second", "ratio"),
    Target("peers", "CleanRL", "DE-Rainbow against CleanRL, a larger CNN", RATE,
           "ours_per_second", "peer_per_second", "ratio"),
    *(Target("peers", agent, f"{what}, {kind}, against Stable-Baselines3", STEP,
             f"ours{key}", "theirs", f"ratio{key}", least)
      for agent, what, targets in (("a2c", "A2C on Breakout, 16 x 5 steps", (1.7, 1.4)),
                                   ("ppo", "PPO on Breakout, 8 x 128 steps", (2.2, 1.5)))
      for kind, key, least in zip(("bfloat16", "float32"), ("", "_float32"), targets,
                                  strict=True)),
    *(Target("on-policy", "masks", f"A2C with a {what} mask, against none", STEP,
             f"{key}_ms", "plain_ms", f"{key}_ratio", least)
      for what, key, least in (("frozen", "frozen", 0.85), ("top-down", "top_down", 0.0),
                               ("jointly trained", "joint", 0.0))),
    *(Target("on-policy", "top_down", f"S3TA, forward and backward, {kind}, against plain torch",
             "CPU ms a frame", f"{key}_ms", "plain_ms", f"{key}_ratio", least)
      for kind, key, least in (("float32", "float32", 2.0), ("bfloat16", "auto", 3.0))),
    Target("peers", "Stable-Baselines3", "SAC against Stable-Baselines3, same encoder", RATE,
           "ours_per_second", "peer_per_second", "peer_ratio", 10.0),
]  # fmt: skip
HEAD = """\
# Speed

Generated by `python -m bench.page` from `bench/measured`. `python -m bench` measures on this
machine; the rest is measured by `bench.error_map 9600`, `bench.released`, `bench.peers`,
`bench.on_policy` and `bench.sac`. On one thread unless a row says otherwise. A ratio is the median
over interleaved runs of ours and the baseline. Targets were set beforehand.

"""
EXACT = """
## Same results

"""


def page() -> str:
    """All of BENCH.md."""
    rows = []
    for target in TARGETS:
        run = _read(target.file)[target.bench]
        rows.append([*cells(target, run["figures"]), _machine(run["machine"]), run["commit"]])
    head = ["what", "unit", "ours", "baseline", "ratio", "target", "met", "machine", "commit"]
    others = [error_maps(), *bfloat16(), *runs(read_records())]
    return HEAD + _grid(head, rows) + EXACT + _grid(["what", "measured", "target", "met"], others)


def cells(target: Target, figures: dict[str, Any]) -> list[str]:
    """What, unit, ours, the baseline's, their ratio, the target and whether it is met."""
    ours, peer, ratio = (figures[key] for key in (target.ours, target.peer, target.ratio))
    least = f"{target.least:g}{'x' if target.of_ratio else ''}" if target.least else ""
    met = _met((ratio if target.of_ratio else ours) >= target.least) if target.least else ""
    numbers = (f"{value:.3g}" if value < 100 else f"{value:,.0f}" for value in (ours, peer))
    return [target.what.format(**figures), target.unit, *numbers, f"{ratio:.3g}", least, met]


def error_maps() -> list[str]:
    """Whether the fast error maps are the definition's (`python -m bench.exact`)."""
    games = _read("error-maps")["games"]
    largest = max(game["largest_difference"] for game in games.values())
    others = sum(game["frames_with_another_selection"] for game in games.values())
    frames = sum(game["frames"] for game in games.values())
    what = f"error maps of {frames:,} frames against the definition, largest difference"
    measured = f"{largest:.1e}, {others} frames with another selection"
    return [what, measured, f"{exact.TOLERANCE:g}", _met(not exact.wrong_games(games))]


def bfloat16() -> list[list[str]]:
    """The effect of bfloat16 in pretraining, and that of another seed (`python -m bench.half`)."""
    rows = []
    for name, what in (("half", "MAE"), ("multimae", "MultiMAE"), ("whole", "MAE")):
        figures = _read("half")[name]["figures"]
        half_, full = figures["bfloat16"], figures["float32"]
        measured = f"loss {half_['loss']:.4f} against {full['loss']:.4f}"
        if "overlap_with_float32" in half_:
            measured += f", {half_['overlap_with_float32']:.1%} of the selected patches shared"
        if seed := figures.get("float32, another seed"):
            measured += f"; another seed: loss {seed['loss']:.4f}"
        target = f"loss within {half.LOSS:.1%}"
        row = [f"bfloat16 against float32, {what}, {figures['epochs']} epochs", measured, target]
        rows.append([*row, _met(not half.differs(figures))])
    return rows


def runs(records: dict[str, list[Record]]) -> list[list[str]]:
    """Whole runs in the records: wall time of two seeds, success of SAC on the state."""
    spirl, sac = records["policies/frostbite-spirl"][0], records["policies/reach-state"]
    seeds, run = spirl.entry["seeds"], spirl.runs["train-frostbite-spirl"]
    minutes = run["wall_seconds"] / 60
    rates = [seed.scores["checkpoints"][-1]["successes"] for seed in sac]
    rate = sum(map(sum, rates)) / sum(map(len, rates))
    return [
        [f"frostbite-spirl, 100,000 steps, {seeds} seeds on two cores, minutes",
         f"{minutes:.0f}", "65", _met(minutes <= 65)],
        [f"success of SAC on Reach's state, {sac[0].entry['steps']:,} steps, {len(rates)} seeds",
         f"{rate:.2f}", "0.9", _met(rate >= 0.9)],
    ]  # fmt: skip


def _read(name: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((MEASURED / f"{name}.json").read_text("utf-8"))
    return figures


def _machine(machine: dict[str, Any]) -> str:
    return ", ".join([machine["processor"], *machine.get("instructions", [])[-1:]])


def _met(met: bool) -> str:
    return "yes" if met else "no"


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    write_atomic(BENCH, page().encode())
    print(BENCH)
