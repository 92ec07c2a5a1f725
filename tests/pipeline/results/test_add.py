"""Adding records: from artifacts, from drafts, and refused ones."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from datasets.errors import FoveaError
from datasets.sealed import write_manifest
from pipeline import params
from pipeline.commands import results
from pipeline.commands.recipe import recipes
from pipeline.config.tables import Params
from pipeline.results.add import DRAFTS, add, keep, write_draft
from pipeline.results.pages import pages
from pipeline.results.record import MEASURED, Record, read_records
from pipeline.runtime import artifact
from tests.pipeline.results.some_records import RUN, probe_of, saliency_of, seed_of

LABEL = "policies/frostbite-spirl"


def seal(root: Path, label: str, entry: Any, inputs: list[str], metrics: Any) -> None:
    folder = root / label
    folder.mkdir(parents=True, exist_ok=True)
    digests = {source: artifact.open_artifact(source, root).digest for source in inputs}
    artifact.seal(folder, label, entry=entry, inputs=digests, metrics=metrics)


def evaluated(root: Path, returns: float = 4.0, failed: str | None = None, **change: Any) -> Path:
    """A finished evaluation of frostbite-spirl, as its stages write it."""
    one = seed_of("frostbite-spirl", 0, [] if failed else [[returns]], failed)
    scores = one.scores | {k: v for k, v in change.items() if k in one.scores}
    entry = one.entry | {k: v for k, v in change.items() if k not in one.scores}
    for point in scores["checkpoints"]:
        point["step"] = entry["steps"]
    seal(root, "frames/frostbite", one.made_from["frames/frostbite"]["entry"], [], {})
    encoder = one.made_from["encoders/frostbite-mae"]["entry"]
    seal(root, "encoders/frostbite-mae", encoder, ["frames/frostbite"], {})
    seal(root, LABEL, entry, ["encoders/frostbite-mae"], {})
    played = root / "evaluations/frostbite-spirl"
    played.mkdir(parents=True)
    seeds = [{"seed": 0, **{key: scores[key] for key in ("failed", "checkpoints")}}]
    shared = {key: scores[key] for key in ("games", "epsilon", "random")}
    (played / "evaluation.json").write_text(json.dumps(shared | {"seeds": seeds}))
    seal(root, "evaluations/frostbite-spirl", {}, [LABEL, "encoders/frostbite-mae"], {})
    (root / ".runs").mkdir()
    write_manifest(root / ".runs/train-frostbite-spirl.json", RUN)
    return root


def test_a_seed_is_recorded_with_its_lineage_and_run(tmp_path: Path) -> None:
    root, folder = evaluated(tmp_path / "artifacts", seeds=1), tmp_path / "kept"  # fewer seeds
    (path,) = add(LABEL, note="a note", root=root, folder=folder)
    (one,) = read_records(folder)[LABEL]
    assert path == folder / "policies/frostbite-spirl-seed-0.json"
    assert list(one.made_from) == [LABEL, "encoders/frostbite-mae", "frames/frostbite"]
    assert one.runs == {"train-frostbite-spirl": RUN} and one.note == "a note"
    assert one.scores["checkpoints"][0]["returns"] == [4.0] * 50
    before = path.read_bytes()
    assert add(LABEL, root=root, folder=folder) == [] and path.read_bytes() == before
    write_manifest(root / ".runs/pretrain-frostbite-mae.json", RUN)
    path.unlink()
    add(LABEL, root=root, folder=folder)
    assert list(read_records(folder)[LABEL][0].runs)[1] == "pretrain-frostbite-mae"


def test_a_policy_whose_seeds_all_failed_is_recorded(tmp_path: Path) -> None:
    root = evaluated(tmp_path / "artifacts", failed="the loss is not finite at step 7")
    add(LABEL, root=root, folder=tmp_path / "kept")
    (one,) = read_records(tmp_path / "kept")[LABEL]
    assert one.scores["failed"] == "the loss is not finite at step 7"


def test_seeds_join_those_of_other_runs(tmp_path: Path) -> None:
    """A run that goes from one seed to two trains only the second; the first keeps its record."""
    folder = tmp_path / "kept"
    root = evaluated(tmp_path / "artifacts")
    (first,) = add(LABEL, root=root, folder=folder)
    before = first.read_bytes()
    played = artifact.open_artifact("evaluations/frostbite-spirl", root)
    path = played.folder / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation["seeds"].append(evaluation["seeds"][0] | {"seed": 1})
    path.write_text(json.dumps(evaluation))
    fields = {key: played.manifest[key] for key in ("entry", "inputs", "metrics")}
    artifact.seal(played.folder, played.label, **fields)
    record = root / ".runs/train-frostbite-spirl.json"
    write_manifest(record, RUN | {"commit": "def", "wall_seconds": 7200.0})
    (added,) = add(LABEL, root=root, folder=folder)
    assert added.name == "frostbite-spirl-seed-1.json" and first.read_bytes() == before
    runs = [one.runs["train-frostbite-spirl"]["commit"] for one in read_records(folder)[LABEL]]
    assert runs == ["abc", "def"]


def test_a_seed_cannot_be_recorded_with_other_scores(tmp_path: Path) -> None:
    add(LABEL, root=evaluated(tmp_path / "first"), folder=tmp_path / "kept")
    second = evaluated(tmp_path / "second", returns=400.0)
    with pytest.raises(FoveaError, match=r"seed-0\.json: measured already, with other scores"):
        add(LABEL, root=second, folder=tmp_path / "kept")
    other = seed_of("frostbite-spirl", 1, [[1.0]])
    other.made_from["encoders/frostbite-mae"]["entry"]["epochs"] = 1
    with pytest.raises(FoveaError, match="other settings than the other seeds'"):
        keep([replace(other, note="short")], tmp_path / "kept")
    assert len(read_records(tmp_path / "kept")[LABEL]) == 1


@pytest.mark.parametrize(
    "change",
    [{"steps": 3_000}, {"features": {"max_ratio": 0.5}}, {"epsilon": 0.05}, {"update_every": 4}],
)
def test_runs_at_other_settings_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    root = evaluated(tmp_path / "artifacts", **change)
    with pytest.raises(FoveaError, match=rf"{next(iter(change))} not as in the recipe"):
        add(LABEL, root=root, folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_an_evaluation_of_older_weights_is_refused(tmp_path: Path) -> None:
    root = evaluated(tmp_path / "artifacts")
    entry = artifact.open_artifact(LABEL, root).manifest["entry"]
    seal(root, LABEL, entry, ["encoders/frostbite-mae"], {"trained": "again"})
    with pytest.raises(FoveaError, match=f"not made from the {LABEL}"):
        add(LABEL, root=root, folder=tmp_path / "kept")


def test_without_the_record_of_its_run_nothing_is_added(tmp_path: Path) -> None:
    root = evaluated(tmp_path / "artifacts")
    record = root / ".runs/train-frostbite-spirl.json"
    write_manifest(record, RUN | {"digest": "of the quick recipe's"})
    with pytest.raises(FoveaError, match=r"train-frostbite-spirl\.json: no record of the run"):
        add(LABEL, root=root, folder=tmp_path / "kept")
    digest = artifact.open_artifact(LABEL, root).digest
    write_manifest(record, RUN | {"digest": digest})
    assert add(LABEL, root=root, folder=tmp_path / "kept")


def test_frames_are_recorded_with_their_metrics(tmp_path: Path) -> None:
    root, label = tmp_path / "artifacts", "frames/drawer-open-learned"
    entry = params.load(recipes()["visarl-state"]).entry(*label.split("/")).resolved()
    metrics = {"learner_last_100_games_success": 0.5}
    seal(root, label, entry, [], metrics)
    (root / ".runs").mkdir()
    write_manifest(root / ".runs/collect-drawer-open-learned.json", RUN)
    (path,) = add(label, root=root, folder=tmp_path / "kept")
    assert path == tmp_path / "kept/frames/drawer-open-learned.json"
    assert read_records(tmp_path / "kept")[label][0].scores == metrics
    seal(root, label, entry | {"steps": 2_000}, [], metrics)
    with pytest.raises(FoveaError, match="steps not as in the recipe"):
        add(label, root=root, folder=tmp_path / "other")


def drafted(one: Record, root: Path) -> Record:
    fields = {k: v for k, v in asdict(one).items() if k not in ("seed", "note", "runs")}
    write_draft(root, **fields)
    return one


def test_drafts_are_completed_with_runs_and_note(tmp_path: Path, small: Params) -> None:
    root, folder = tmp_path / "artifacts", tmp_path / "kept"
    (root / ".runs").mkdir(parents=True)
    for one, command, stage in (
        (probe_of(small, "reach-mae-s0", pooled=0.5), "probe", "pretrain"),
        (saliency_of(small, "near", 0.01), "judge", "fit"),
    ):
        name = one.artifact.partition("/")[2]
        with pytest.raises(FoveaError, match=rf"python -m pipeline\.commands\.{command}"):
            add(one.artifact, one.on, root=root, folder=folder)
        drafted(one, root)
        write_manifest(root / f".runs/{stage}-{name}.json", RUN | {"digest": "d" * 64})
        write_manifest(root / f".runs/{command}-{name}.json", RUN)
        (path,) = add(one.artifact, one.on, "a note", root=root, folder=folder)
        (added,) = read_records(folder)[one.artifact]
        assert added.scores == one.scores and added.note == "a note"
        assert list(added.runs) == [f"{stage}-{name}", f"{command}-{name}"]
        (root / DRAFTS / one.path).unlink()
        path.unlink()
        one.made_from["frames/reach"]["entry"]["count"] = 9
        drafted(one, root)
        with pytest.raises(FoveaError, match=r"frames/reach: count not as in the recipe.*--note"):
            add(one.artifact, one.on, root=root, folder=folder)
        assert add(one.artifact, one.on, "few", root=root, folder=folder) == [path]


def test_the_command_adds_from_another_clone_and_renders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = evaluated(tmp_path / "clone", steps=3_000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["results"])
    monkeypatch.setattr(results, "read_papers", list)  # their pages take longer
    results.main()
    for path, text in pages([], read_records()).items():
        assert (tmp_path / path).read_text("utf-8") == text
    before = sorted(MEASURED.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["results", "add", LABEL, "--artifacts", str(root)])
    with pytest.raises(SystemExit, match="steps not as in the recipe"):
        results.main()
    assert sorted(MEASURED.rglob("*")) == before
