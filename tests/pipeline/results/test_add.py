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
from pipeline.config.sources import made_from_of
from pipeline.config.tables import Params
from pipeline.results.add import add, keep, write_draft
from pipeline.results.pages import pages
from pipeline.results.record import MEASURED, Record, read_records
from pipeline.runtime import artifact
from tests.pipeline.results.some_records import RUN, probe_of, row, seed_of

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
    shared = {key: scores[key] for key in ("games", "epsilon", "sample", "random")}
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
    one, name = probe_of(small, "reach-mae-s0", pooled=0.5), "reach-mae-s0"
    with pytest.raises(FoveaError, match=r"python -m pipeline\.commands\.probe"):
        add(one.artifact, one.on, root=root, folder=folder)
    drafted(one, root)
    write_manifest(root / f".runs/pretrain-{name}.json", RUN | {"digest": "d" * 64})
    write_manifest(root / f".runs/probe-{name}.json", RUN)
    (path,) = add(one.artifact, one.on, "a note", root=root, folder=folder)
    (added,) = read_records(folder)[one.artifact]
    assert added.scores == one.scores and added.note == "a note"
    assert list(added.runs) == [f"pretrain-{name}", f"probe-{name}"]
    path.unlink()
    one.made_from["frames/reach"]["entry"]["count"] = 9
    drafted(one, root)
    with pytest.raises(FoveaError, match=r"frames/reach: count not as in the recipe.*--note"):
        add(one.artifact, one.on, root=root, folder=folder)
    assert add(one.artifact, one.on, "few", root=root, folder=folder) == [path]


def examined(root: Path, small: Params, exam: str, seeds: list[int | None]) -> str:
    """A finished exam, as its stage leaves it, and what it is made from; its source's label."""
    entry = small.entry("exams", exam)
    truth, by, k = entry.keys.truth, entry.keys.by, entry.keys.keypoints
    data = small.entry(*truth.split("/")).inputs()["frames"]
    seal(root, data, small.entry(*data.split("/")).resolved(), [], {})
    seal(root, truth, small.entry(*truth.split("/")).resolved(), [data], {})
    learned = small.entry(*by.split("/"))
    for label in reversed(sorted(made_from_of(learned, small))):  # frames, then annotations
        inputs = list(small.entry(*label.split("/")).inputs().values())
        seal(root, label, small.entry(*label.split("/")).resolved(), inputs, {})
    seal(root, by, learned.resolved(), list(learned.inputs().values()), {"loss": 0.5})

    def scores(recall: float) -> dict[str, Any]:
        maps = {"f_max": recall / 2, "f_adaptive": 0.1, "mae": 0.25}
        looked = {"nss": [recall, 20, [recall]], "kl": [None, 0, []]}
        return {"maps": maps, "fixations": looked} | ({"points": row(recall)} if k else {})

    folder = root / "exams" / exam
    folder.mkdir(parents=True)
    value = {"truth": truth, "by": by, "frames": 20, "keypoints": k, "epsilon": 0.2}
    value |= {"objects": {"objects_per_frame": 3.0, "ceiling": 0.9} if k else {}}
    value["controls"] = {name: scores(0.2) for name in ("zero", "centre", "uniform", "random")}
    value["seeds"] = [
        {"seed": seed, "source": scores(0.75), "shuffled": scores(0.5)} for seed in seeds
    ]
    (folder / "exam.json").write_text(json.dumps(value))
    seal(root, f"exams/{exam}", entry.resolved(), [truth, by], {})
    (root / ".runs").mkdir(exist_ok=True)
    return str(by)


@pytest.mark.parametrize("exam", ["near", "mae-s0", "mae-ten"])
def test_an_exam_is_a_record_of_its_source(tmp_path: Path, small: Params, exam: str) -> None:
    root, folder = tmp_path / "artifacts", tmp_path / "kept"
    by, label = examined(root, small, exam, [None]), f"exams/{exam}"
    with pytest.raises(FoveaError, match=rf"exam-{exam}\.json: no record of the run"):
        add(label, root=root, folder=folder)
    stage = {"near": "fit-near"}.get(exam, "pretrain-reach-mae-s0")
    digest = artifact.open_artifact(label, root).digest
    write_manifest(root / f".runs/exam-{exam}.json", RUN | {"digest": digest})
    write_manifest(root / f".runs/{stage}.json", RUN)
    (path,) = add(label, root=root, folder=folder)
    file = {
        "near": "predictors/near-on-further.json",
        "mae-s0": "encoders/reach-mae-s0-on-objects-k7.json",
        "mae-ten": "encoders/reach-mae-s0-on-objects-k10.json",
    }
    assert path == folder / file[exam]
    (one,) = read_records(folder)[by]
    assert (one.on, one.seed) == (small.entry("exams", exam).keys.truth, None)
    assert next(iter(one.made_from)) == by and list(one.measured_on)[1] == "frames/unseen"
    assert list(one.runs) == [stage, f"exam-{exam}"] and one.scores["own"] == {"loss": 0.5}
    judged = one.scores["judged"]
    assert (judged["f_max"], judged["shuffled_f_max"], judged["centre_mae"]) == (0.375, 0.25, 0.25)
    assert one.scores["looked"]["source"] == {"nss": [0.75, 20, [0.75]], "kl": [None, 0, []]}
    assert one.scores["looked"]["random"]["nss"][0] == 0.2
    assert ("detected" in one.scores) == (exam != "near")
    if exam != "near":
        detected = one.scores["detected"]
        assert (detected["source"]["recall"], detected["uniform"]["recall"]) == (0.75, 0.2)
        assert detected["k"] == one.keypoints and detected["ceiling"] == 0.9
    assert add(label, root=root, folder=folder) == []


def test_an_exam_of_an_older_source_is_refused(tmp_path: Path, small: Params) -> None:
    root = tmp_path / "artifacts"
    by = examined(root, small, "mae-s0", [None])
    seal(root, by, small.entry(*by.split("/")).resolved(), ["frames/reach"], {"trained": "again"})
    with pytest.raises(FoveaError, match=rf"exams/mae-s0: not made from the current {by}"):
        add("exams/mae-s0", root=root, folder=tmp_path / "kept")


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
