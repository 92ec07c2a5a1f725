"""Renders the report: one self-contained page, and the metrics for DVC.

Wall times and machines, which vary from run to run, are in `artifacts/.runs/`, not on the page.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from datasets.errors import FoveaError
from datasets.files import write_atomic
from pipeline.config.tables import COMMITTED
from pipeline.parts.charts import number, percent
from pipeline.results import exams, plots
from pipeline.results.data import (
    REFERENCES,
    Evaluation,
    Item,
    Score,
    gather,
    read_curve,
    read_evaluation,
    read_object,
    reference,
    score,
)
from pipeline.runtime.artifact import open_artifact
from rl.statistics import difference_interval

SIGNATURES = {"image/png": (0, b"\x89PNG\r\n\x1a\n"), "video/mp4": (4, b"ftyp")}
SCORE = {"mean": "return", "mean_low": "return_low", "mean_high": "return_high", "random": "random",
         "success": "success", "smoke": "smoke_test"}  # fmt: skip
SECTIONS = ("encoders", "saliency", "predictors", "annotations", "frames")


def render(
    params: Mapping[str, Any], artifacts: Path, out: Path, *, papers: Sequence[Any] = ()
) -> dict[str, Any]:
    """Write index.html, scores/<policy>.json and curves/<policy>.csv; return all metrics.

    `params` are the tables of params.yaml; only their artifacts are read from `artifacts`, and the
    page lists the missing ones. `papers` are (name, summary, head, rows) of the comparisons with
    each paper. Raises FoveaError for a malformed artifact.
    """
    tables = gather(params, artifacts)
    items = [item for table in tables.values() for item in table]
    pairs = zip(tables["policies"], tables["evaluations"], strict=True)
    policies = [_policy(policy, evaluated) for policy, evaluated in pairs]
    evaluated_policies = [policy for policy in policies if policy["evaluation"]]
    answers = exams.of_items(tables)
    page = _template().render(
        counts={table: len(some) for table, some in tables.items() if some},
        smoke=[policy["name"] for policy in evaluated_policies if policy["evaluation"].smoke],
        evaluated_policies=evaluated_policies,
        policies=policies,
        exams=exams.tables(answers),
        matrix=exams.matrix(answers),
        examined=[_card(item) | exams.charts(item) for item in tables["exams"]],
        sections={t: [_card(item) for item in tables[t]] for t in SECTIONS if tables[t]},
        papers=papers,
        items=items,
        digests={item.key: item.digest for item in items} | _committed(artifacts),
        reference_source=(read_object(REFERENCES) or {}).get("source", ""),
    )
    metrics = {policy["name"]: _metrics(policy) for policy in evaluated_policies}
    curves = {f"{one['name']}.csv": _curve_csv(one["evaluation"]) for one in evaluated_policies}
    _replace(out / "curves", curves)
    _replace(out / "scores", {f"{name}.json": _score(one) for name, one in metrics.items()})
    write_atomic(out / "index.html", page.encode())
    return metrics


def _committed(artifacts: Path) -> dict[str, str]:
    """Label -> digest of the encoders that are in no table."""
    labels = [f"encoders/{name}" for name in COMMITTED]
    return {label: open_artifact(label, artifacts).digest for label in labels}


def _template() -> Template:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "number": number,
        "percent": percent,
        "median": lambda values: float(np.median(values)),
    }
    return templates.get_template("page.html")


def _policy(policy: Item, evaluation_item: Item) -> dict[str, Any]:
    """The page's data of one policy; scores and curves only if it is evaluated."""
    evaluation = read_evaluation(evaluation_item.folder) if evaluation_item.manifest else None
    data: dict[str, Any] = {
        "name": policy.name,
        "entry": policy.entry,
        "evaluation": evaluation,
        "missing": [item for item in (policy, evaluation_item) if item.manifest is None],
        "settings": _settings(policy.entry),
    }
    if evaluation is None:
        return data
    total, chance = _scores(evaluation)
    curves = [
        read_curve(policy.folder / f"seed-{seed.seed}" / "curve.csv", "return")
        for seed in (evaluation.seeds if policy.manifest else ())
    ]
    training = [points for points in curves if points is not None]
    human = reference(evaluation.env)
    final = [seed.final for seed in evaluation.seeds]
    above = difference_interval(final, [evaluation.random], lambda returns: float(returns.mean()))
    success: dict[str, Any] | None = None
    if (successes := read_evaluation(evaluation_item.folder, "successes")) is not None:
        scores = _scores(successes)
        curve = plots.learning_curve(policy.name, successes.seeds, "success", scores)
        success = {"total": scores[0], "chance": scores[1], "curve": curve}
    scale = human["human"] - human["random"] if human else 0.0
    return data | {
        "total": total,
        "chance": chance,
        "row": (policy.name, total),
        "above": total.mean - chance.mean,
        "above_interval": above,
        "human": human.get("human"),
        "normalised": (total.mean - human["random"]) / scale if human else None,
        "curve": plots.learning_curve(
            policy.name, evaluation.seeds, "return", (total, chance), training
        ),
        "success": success,
        "metrics": evaluation_item.manifest["metrics"] if evaluation_item.manifest else {},
        "video": data_uri(evaluation_item.folder / "video.mp4", "video/mp4"),
        "attention": data_uri(evaluation_item.folder / "attention.png", "image/png"),
    }


def _scores(evaluation: Evaluation) -> tuple[Score, Score]:
    """The policy's score and the uniform random policy's."""
    return score([seed.final for seed in evaluation.seeds]), score([evaluation.random])


def _card(item: Item) -> dict[str, Any]:
    """The page's data of one entry of a table other than policies."""
    card: dict[str, Any] = {"item": item, "settings": _settings(item.entry)}
    if item.manifest is None:
        return card
    names = "contact_sheet.png", "panels.png", "overlay.png", "pictures.png"
    pictures = [data_uri(item.folder / name, "image/png") for name in names]
    loss = read_curve(item.folder / "curve.csv", "loss")
    return card | {
        "facts": _settings(item.manifest["metrics"]),
        "picture": next((picture for picture in pictures if picture), None),
        "loss": plots.loss_curve(item.name, loss) if loss is not None and len(loss) else None,
    }


def _settings(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Keys and values as text; nested ones with dots."""
    rows: list[tuple[str, str]] = []
    for key, value in entry.items():
        if isinstance(value, Mapping):
            rows += [(f"{key}.{inner}", text) for inner, text in _settings(value)]
        elif isinstance(value, float):
            rows.append((key, f"{value:.3g}"))
        elif isinstance(value, int) and not isinstance(value, bool):
            rows.append((key, f"{value:,}"))
        else:
            rows.append((key, value if isinstance(value, str) else json.dumps(value)))
    return rows


def _metrics(policy: Mapping[str, Any]) -> dict[str, Any]:
    evaluation: Evaluation = policy["evaluation"]
    total, chance, success = policy["total"], policy["chance"], policy["success"]
    values = {
        "mean": (total.mean, total.mean_interval),
        "iqm": (total.iqm, total.iqm_interval),
        "random": (chance.mean, chance.mean_interval),
        "above_random": (policy["above"], policy["above_interval"]),
    }
    for name, key in (("success", "total"), ("random_success", "chance")) if success else ():
        values[name] = (success[key].mean, success[key].mean_interval)
    metrics: dict[str, Any] = {}
    for name, (value, (low, high)) in values.items():
        metrics |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return metrics | {
        "seeds": len(evaluation.seeds),
        "failed_seeds": evaluation.failed,
        "episodes": evaluation.games,
        "steps": evaluation.steps,
        "smoke": evaluation.smoke,
    }


def _score(metrics: Mapping[str, Any]) -> bytes:
    """The few metrics that fit a line of `dvc metrics show`, each with four digits."""
    values = {column: metrics[key] for key, column in SCORE.items() if key in metrics}
    short = {key: v if isinstance(v, bool) else float(f"{v:.4g}") for key, v in values.items()}
    return (json.dumps(short, indent=1) + "\n").encode()


def _replace(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make `folder` have these files and none of policies that params.yaml no longer has."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.name not in files:
            old.unlink()
    for name, content in files.items():
        write_atomic(folder / name, content)


def _curve_csv(evaluation: Evaluation) -> bytes:
    """The mean return at every checkpoint, of all seeds and of each."""
    rows = [["step", "mean", *(f"seed-{seed.seed}" for seed in evaluation.seeds)]]
    for step in sorted({step for seed in evaluation.seeds for step in seed.steps}):
        returns = [seed.at(step) for seed in evaluation.seeds]
        means = (float(one.mean()) for one in (np.concatenate(returns), *returns))
        rows.append([str(step), *map(str, means)])
    return "".join(",".join(row) + "\n" for row in rows).encode()


def data_uri(path: Path, kind: str) -> str | None:
    """The file as a data URI, None without a file. Raises FoveaError for another kind of file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    offset, signature = SIGNATURES[kind]
    if content[offset : offset + len(signature)] != signature:
        raise FoveaError(f"{path}: not {kind}; build the artifact again")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
