"""Lays the report out: one page that needs nothing beside it, and the numbers for DVC."""

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from datasets.errors import FoveaError
from datasets.files import write_atomic
from pipeline.results import plots
from pipeline.results.data import (
    Evaluation,
    Item,
    Score,
    family,
    gather,
    read_curve,
    read_evaluation,
    read_json,
    reference,
    reference_source,
    score,
)
from pipeline.results.wording import commit, describe, duration, memory, percent
from pipeline.runtime.artifact import STAGES
from rl.statistics import difference_interval

SECTIONS = {
    "encoders": "Encoders",
    "saliency": "Saliency",
    "predictors": "Predictors",
    "annotations": "Annotations",
    "frames": "Frames",
}
COUNTED = {  # how many entries the page says there are: one, several
    "policies": ("policy", "policies"),
    "encoders": ("encoder", "encoders"),
    "saliency": ("set of saliency maps", "sets of saliency maps"),
    "predictors": ("predictor", "predictors"),
    "annotations": ("set of annotations", "sets of annotations"),
    "frames": ("set of frames", "sets of frames"),
}
SIGNATURES = {"image/png": (0, b"\x89PNG\r\n\x1a\n"), "video/mp4": (4, b"ftyp")}
# What a table's entries look like in pictures: file, alt text, caption.
PICTURES = {
    "frames": (
        "contact_sheet.png",
        "Contact sheet of frames sampled from {}",
        "Frames sampled over the whole set, in time order.",
    ),
    "encoders": (
        "panels.png",
        "What {} makes of frames",
        "Frames, what the encoder makes of them, and where it looks. Figure numbers are those of "
        "the paper that its method is from.",
    ),
    "predictors": (
        "overlay.png",
        "Maps of {} laid over frames",
        "Its saliency over frames; of one that was taught, over frames that did not teach it.",
    ),
    "annotations": (
        "overlay.png",
        "Saliency maps from the clicks of {} laid over their frames",
        "Clicks, as Gaussians, over the frames they were made on.",
    ),
    "saliency": (
        "overlay.png",
        "Saliency maps of {} laid over their frames",
        "Saliency over the frames it belongs to.",
    ),
}


def render(
    params: Mapping[str, Any], artifacts: Path, out: Path, *, ledger: str = ""
) -> dict[str, Any]:
    """Write index.html, metrics.json and curves/<policy>.csv into `out`; return the metrics.

    `params` holds the tables of params.yaml; only what they name is read from `artifacts`, and an
    artifact that is not there is named on the page. `ledger` is HTML: what was found of a paper's
    claims. Raises FoveaError for an artifact that is malformed.
    """
    found = gather(params, artifacts)
    items = [item for table in found.values() for item in table]
    policies = [
        _policy(policy, evaluated)
        for policy, evaluated in zip(found["policies"], found["evaluations"], strict=True)
    ]
    judged = [p for p in policies if p["evaluation"]]
    page = _template().render(
        counts=[(len(found[table]), *names) for table, names in COUNTED.items() if found[table]],
        smoke=[p["name"] for p in judged if p["evaluation"].smoke],
        comparisons=_comparisons(judged),
        policies=policies,
        sections=[
            (table, title, [_card(item) for item in found[table]])
            for table, title in SECTIONS.items()
            if found[table]
        ],
        ledger=ledger,
        items=items,
        family=family(items),
        lineage=plots.lineage(family(items)),
        digests={item.key: item.digest for item in items},
        machines=_machines(items),
        reference_source=reference_source(),
    )
    metrics = {p["name"]: _metrics(p) for p in judged}
    curves = out / "curves"
    curves.mkdir(parents=True, exist_ok=True)
    for old in curves.glob("*.csv"):  # of policies that params.yaml named once
        old.unlink()
    for p in judged:
        write_atomic(curves / f"{p['name']}.csv", _curve_csv(p["evaluation"]))
    write_atomic(out / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())
    write_atomic(out / "index.html", page.encode())
    return metrics


def _template() -> Template:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "number": plots.number,
        "percent": percent,
        "duration": duration,
        "memory": memory,
        "commit": commit,
        "median": lambda values: float(np.median(values)),
    }
    templates.globals |= {"describe": describe, "stages": STAGES}
    return templates.get_template("page.html")


def _policy(policy: Item, evaluated: Item) -> dict[str, Any]:
    """What the page says about one policy; scores and drawings only where it was evaluated."""
    evaluation = read_evaluation(evaluated.folder)
    shown: dict[str, Any] = {
        "name": policy.name,
        "entry": policy.entry,
        "evaluation": evaluation,
        "missing": [item for item in (policy, evaluated) if item.manifest is None],
        "settings": _settings(policy.entry),
    }
    if evaluation is None:
        return shown
    total, chance = score(evaluation.final), score([evaluation.random])
    games = [
        read_curve(policy.folder / f"seed-{seed.seed}" / "curve.csv", "return")
        for seed in evaluation.seeds
    ]
    known = [points for points in games if points is not None]
    human = reference(evaluation.env)
    above = difference_interval(
        evaluation.final, [evaluation.random], lambda games: float(games.mean())
    )
    return shown | {
        "total": total,
        "chance": chance,
        "above": total.mean - chance.mean,
        "above_interval": above,
        "human": human.get("human"),
        "normalised": _normalised(total.mean, human),
        "curve": plots.learning_curve(policy.name, evaluation, total, chance, known),
        "success": _success(policy.name, read_evaluation(evaluated.folder, "successes")),
        "filmed": evaluated.manifest["metrics"] if evaluated.manifest else {},
        "video": data_uri(evaluated.folder / "video.mp4", "video/mp4"),
        "attention": data_uri(evaluated.folder / "attention.png", "image/png"),
        "remembered": {seed.seed: _remembered(policy, seed.seed) for seed in evaluation.seeds},
    }


def _remembered(policy: Item, seed: int) -> str:
    """How much of its error maps a seed's last process found in memory; "" where it has none."""
    runs = policy.folder.parents[1] / ".runs" / f"train-{policy.name}"
    found = read_json(runs / f"seed-{seed}" / "errors.json")
    if found is None:
        return ""
    rate = found["hits"] / (found["hits"] + found["misses"])
    return f"{rate:.0%} of the errors remembered, {found['bytes'] / 1e6:.0f} MB"


def _success(name: str, evaluation: Evaluation | None) -> dict[str, Any] | None:
    """The share of games that succeed, and its curve, where the environment tells."""
    if evaluation is None:
        return None
    total, chance = score(evaluation.final), score([evaluation.random])
    curve = plots.learning_curve(name, evaluation, total, chance, [], "success")
    return {"total": total, "chance": chance, "curve": curve}


def _normalised(value: float, human: Mapping[str, float]) -> float | None:
    """Per cent of the way from the published random score to the published human one."""
    if not human:
        return None
    return 100 * (value - human["random"]) / (human["human"] - human["random"])


def _comparisons(policies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One comparison an environment: rows of scores on a common scale, chance first."""
    comparisons = []
    for env in dict.fromkeys(p["evaluation"].env for p in policies):
        group = [p for p in policies if p["evaluation"].env == env]
        scores: list[tuple[str, Score]] = [("Uniform random", group[0]["chance"])]
        scores += [(p["name"], p["total"]) for p in group]
        edges = [edge for _, s in scores for edge in s.mean_interval]
        low = min(0.0, *edges)
        width = (max(edges) - low) or 1.0

        def share(value: float, low: float = low, width: float = width) -> str:
            return f"{100 * (value - low) / width:.2f}%"

        rows = [
            {
                "name": name,
                "score": s,
                "left": share(s.mean_interval[0]),
                "width": share(s.mean_interval[1] - s.mean_interval[0] + low),
                "dot": share(s.mean),
            }
            for name, s in scores
        ]
        comparisons.append({"env": env, "rows": rows, "human": group[0]["human"]})
    return comparisons


def _card(item: Item) -> dict[str, Any]:
    """What the page says about one entry of a table other than policies."""
    card: dict[str, Any] = {"item": item, "settings": _settings(item.entry)}
    if item.manifest is None:
        return card
    file, alt, caption = PICTURES.get(item.table, ("", "", ""))
    picture = data_uri(item.folder / file, "image/png") if file else None
    loss = read_curve(item.folder / "curve.csv", "loss")
    return card | {
        "facts": _settings(item.manifest["metrics"]),
        "picture": picture and (picture, alt.format(item.name), caption),
        "loss": plots.loss_curve(item.name, loss) if loss is not None and len(loss) else None,
        "absent": [
            name
            for name in (file, "curve.csv")
            if name in item.manifest["files"] and not (item.folder / name).exists()
        ],
    }


def _settings(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Keys and values as text; nested ones with dots."""
    rows: list[tuple[str, str]] = []
    for key, value in entry.items():
        if isinstance(value, Mapping):
            rows += [(f"{key}.{inner}", text) for inner, text in _settings(value)]
        elif isinstance(value, float):
            rows.append((key, f"{value:g}"))
        elif isinstance(value, int) and not isinstance(value, bool):
            rows.append((key, f"{value:,}"))
        else:
            rows.append((key, value if isinstance(value, str) else json.dumps(value)))
    return rows


def _machines(items: Sequence[Item]) -> dict[str, str]:
    """Description of each machine that ran a stage -> a letter to call it by."""
    seen = dict.fromkeys(describe(item.run["machine"]) for item in items if item.run)
    return {machine: chr(ord("A") + i) if i < 26 else str(i) for i, machine in enumerate(seen)}


def _metrics(policy: Mapping[str, Any]) -> dict[str, Any]:
    evaluation: Evaluation = policy["evaluation"]
    total, chance, success = policy["total"], policy["chance"], policy["success"]
    told: dict[str, Any] = {}
    for name, found in (("success", "total"), ("random_success", "chance")) if success else ():
        told |= _told(name, success[found].mean, success[found].mean_interval)
    return told | {
        **_told("mean", total.mean, total.mean_interval),
        **_told("iqm", total.iqm, total.iqm_interval),
        "random_mean": chance.mean,
        "random_low": chance.mean_interval[0],
        "random_high": chance.mean_interval[1],
        **_told("above_random", policy["above"], policy["above_interval"]),
        "seeds": len(evaluation.seeds),
        "failed_seeds": evaluation.failed,
        "games": evaluation.games,
        "steps": evaluation.steps,
        "smoke": evaluation.smoke,
    }


def _told(name: str, value: float, interval: tuple[float, float]) -> dict[str, float]:
    return {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}


def _curve_csv(evaluation: Evaluation) -> bytes:
    """Mean return at every checkpoint: of all seeds, then of each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "mean", *(f"seed-{seed.seed}" for seed in evaluation.seeds)])
    for step in evaluation.checkpoints:
        means = [float(returns.mean()) for returns in evaluation.scores(step)]
        writer.writerow([step, float(np.concatenate(evaluation.scores(step)).mean()), *means])
    return text.getvalue().encode()


def data_uri(path: Path, kind: str) -> str | None:
    """The file as a data URI, None where there is none; FoveaError where it is another kind."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    offset, signature = SIGNATURES[kind]
    if content[offset : offset + len(signature)] != signature:
        raise FoveaError(f"{path}: not {kind}; build the artifact again")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
