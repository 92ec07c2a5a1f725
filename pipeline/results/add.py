"""Add records: from the artifacts of an evaluation, an exam or a collection, or from what
`python -m pipeline.commands.probe` wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from datasets.errors import FoveaError
from datasets.files import read_json
from datasets.sealed import read_manifest, write_manifest
from pipeline.parts.exams import read_exam
from pipeline.results.record import MEASURED, Record, check, read_records, write_record
from pipeline.runtime import artifact

DRAFTS = Path(".runs/measured")  # below artifacts/: records without note and runs


def write_draft(root: Path, **fields: Any) -> Path:
    """Write what a command measured, for `add` to complete; returns the file."""
    record = Record(seed=None, note="", runs={}, **fields)
    path = root / DRAFTS / record.path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(path, asdict(record))
    return path


def add(
    label: str,
    on: str | None = None,
    note: str = "",
    *,
    root: Path = artifact.ROOT,
    folder: Path = MEASURED,
) -> list[Path]:
    """Add the records of an artifact, of a policy one a seed, of an exam those of its source;
    returns the files written.

    Raises FoveaError, and writes nothing, where artifacts or the record of a run are missing, an
    artifact was built from others than those there now, or `keep` refuses.
    """
    table = label.partition("/")[0]
    if table == "policies":
        records = _seeds(label, root)
    elif table == "exams":
        records = _examined(label, root)
    elif table == "frames":
        frames = artifact.open_artifact(label, root)
        records = [_record(label, root, versions=frames.manifest["versions"],
                           scores=frames.manifest["metrics"])]  # fmt: skip
    else:
        records = [_measured(label, on, root)]
    return keep([replace(record, note=note) for record in records], folder)


def keep(records: Sequence[Record], folder: Path = MEASURED) -> list[Path]:
    """Check records and write those that are new; a seed that is there with the same scores stays
    as it is, as its run is the one that trained it.

    Raises FoveaError for a record that is malformed or not at a recipe's settings, was measured
    before with other scores, or has another encoder than the policy's other seeds.
    """
    known = read_records(folder) if folder.exists() else {}
    new = []
    for record in records:
        path = folder / record.path
        check(record, path)
        others = {one.path: one for one in known.get(record.artifact, [])}
        if record.path not in others:
            new.append(record)
        elif others[record.path].scores != record.scores:
            raise FoveaError(
                f"{path}: measured already, with other scores; remove that file first, and say in "
                "the commit why"
            )
        if record.seed is not None and not all(record.is_like(one) for one in others.values()):
            raise FoveaError(f"{path}: its encoder has other settings than the other seeds'")
    return [write_record(record, folder) for record in new]


def run_record(root: Path, run: str, digest: str | None = None) -> dict[str, Any] | None:
    """The record of a stage's run; None where there is none, or it is of another artifact."""
    path = root / ".runs" / f"{run}.json"
    record = _read(path) if path.exists() else {}
    return record if record and record.get("digest", digest) == digest else None


def _record(label: str, root: Path, **fields: Any) -> Record:
    """A record of an artifact and of the run that built it, which must be there."""
    table, _, name = label.partition("/")
    lineage = artifact.lineage(label, root)
    stage = artifact.STAGES[table]
    run = run_record(root, f"{stage}-{name}", lineage[label]["digest"])
    if run is None:
        raise FoveaError(
            f"{root}/.runs/{stage}-{name}.json: no record of the run that built this {label}, its "
            f"commit and machine; `dvc repro -f {stage}@{name}` builds it again"
        )
    empty: dict[str, Any] = {"seed": None, "on": None, "note": "", "measured_on": {}}
    fields = empty | {"runs": {f"{stage}-{name}": run}} | fields
    return Record(artifact=label, made_from=lineage, **fields)


def _seeds(label: str, root: Path) -> list[Record]:
    name = label.partition("/")[2]
    played = artifact.open_artifact(f"evaluations/{name}", root)
    trained = artifact.open_artifact(label, root)
    if played.manifest["inputs"].get(label) != trained.digest:
        raise FoveaError(
            f"{root / played.label}: not made from the {label} that is there now; "
            f"`dvc repro evaluate@{name}` builds both anew"
        )
    record = _record(label, root, versions=trained.manifest["versions"], scores={})
    encoder = f"encoders/{trained.manifest['entry']['encoder']}"
    stage = f"pretrain-{encoder.partition('/')[2]}"
    pretraining = run_record(root, stage, record.made_from[encoder]["digest"])
    runs = record.runs | ({stage: pretraining} if pretraining else {})
    evaluation = read_json(played.folder / "evaluation.json")
    names = ("games", "epsilon", "sample", "evaluate_env", "attention_threshold", "random")
    shared = {key: evaluation[key] for key in names if key in evaluation}
    return [
        replace(
            record,
            seed=seed["seed"],
            runs=runs,
            scores=shared | {key: seed[key] for key in ("failed", "checkpoints")},
        )
        for seed in evaluation["seeds"]
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_manifest(path)
    except FoveaError as error:
        raise FoveaError(f"{error}; remove it, then build or measure that again") from error


def _examined(label: str, root: Path) -> list[Record]:
    """The records of an exam's source, one a seed of a policy.

    The exam must be of the present versions of the source and the annotations.
    """
    opened = artifact.open_artifact(label, root)
    record = _record(label, root, versions=opened.manifest["versions"], scores={})
    exam = read_exam(opened.folder)
    made_from = artifact.lineage(exam.by, root)
    stage = artifact.STAGES[exam.by.partition("/")[0]] + "-" + exam.by.partition("/")[2]
    run = run_record(root, stage, made_from[exam.by]["digest"])
    own = artifact.open_artifact(exam.by, root).manifest["metrics"]
    return [
        replace(
            record,
            artifact=exam.by,
            seed=seed.seed,
            on=exam.truth,
            made_from=made_from,
            measured_on=artifact.lineage(exam.truth, root),
            runs=({stage: run} if run else {}) | record.runs,
            scores=exam.scores(seed) | {"own": own},
        )
        for seed in exam.seeds
    ]


def _measured(label: str, on: str | None, root: Path) -> Record:
    """A draft that a command wrote, with the run that built the artifact where it is recorded."""
    table, _, name = label.partition("/")
    path = root / DRAFTS / f"{label}-on-{(on or '').partition('/')[2]}.json"
    if not path.exists():
        raise FoveaError(
            f"{path}: not there; `python -m pipeline.commands.probe` writes it, of encoders and "
            "frames; scores of saliency are those of `add exams/NAME`"
        )
    record = Record(**_read(path))
    stage = artifact.STAGES[table]
    run = run_record(root, f"{stage}-{name}", record.made_from[label]["digest"])
    own = run_record(root, f"probe-{name}")
    runs = {f"{stage}-{name}": run, f"probe-{name}": own}
    return replace(record, runs={stage: one for stage, one in runs.items() if one})
