"""Measured seeds: how they are kept, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.errors import FoveaError
from pipeline import params
from pipeline.commands.recipe import recipes
from pipeline.commands.results import RESULTS, main, page
from pipeline.results import measured, settings
from pipeline.results.claims import read_claims
from pipeline.results.judged import Measured, ours
from pipeline.results.measured import add, read_measured
from pipeline.results.render import render
from pipeline.runtime import artifact
from tests.pipeline.kept_seeds import PAPER, SPIRL, fifty, keep, one


def test_scores_go_by_the_protocol_and_failed_seeds_stay_in(tmp_path: Path) -> None:
    best = [[0.0, 0.0, 99.0], [5.0, 5.0, 5.0], [1.0, 1.0, 1.0]]
    early = one("frostbite-spirl", 1, [[7.0]], failed="the loss is not finite")
    early["checkpoints"][0]["step"] = 20_000
    failed = one("frostbite-spirl", 2, [], failed="the loss is not finite")
    keep(tmp_path, one("frostbite-spirl", 0, best), early, failed)
    found = read_measured(tmp_path)["frostbite-spirl"]
    assert [seed.games("mean").mean() for seed in found] == [1.0, 7.0, 1.5]
    assert [np.median(seed.games("median")) for seed in found] == [5.0, 7.0, 1.5]
    score = ours(found, "mean")
    assert (score.seeds, score.failed) == (3, 2)
    assert score.mean == pytest.approx(9.5 / 3)


def test_success_is_that_of_the_last_checkpoint(tmp_path: Path) -> None:
    played = one("frostbite-spirl", 0, [[9.0], [1.0]])
    failed = one("frostbite-spirl", 1, [], failed="the loss is not finite")
    for file in (played, failed):
        file["random"]["successes"] = fifty([0.0, 0.0, 0.0, 0.0, 1.0])
    for point, rate in zip(played["checkpoints"], (0.5, 1.0), strict=True):
        point["successes"] = fifty([rate == 1.0, True])
    found = read_measured(keep(tmp_path, played, failed))["frostbite-spirl"]
    assert [seed.games("success").mean() for seed in found] == [0.5, 0.2]
    keep(tmp_path, one("frostbite-spirl", 2, [[1.0]]))
    seed = read_measured(tmp_path)["frostbite-spirl"][2]
    with pytest.raises(FoveaError, match=r"seed-2\.json: has no successes"):
        seed.games("success")
    played["checkpoints"][0]["successes"][0] = 2
    with pytest.raises(FoveaError, match=r"seed-0\.json.*0 or 1"):
        read_measured(keep(tmp_path, played))


def test_what_saliency_comes_from_is_checked_too(tmp_path: Path) -> None:
    """As of an encoder itself: another setting asks for a note, and is not mixed with others."""
    frames = SPIRL.entry("frames", "frostbite").resolved()
    file = one("frostbite-spirl", 0, [[1.0]])
    file["encoder"]["made_from"] = {"frames/frostbite": {"digest": "a", "entry": frames}}
    assert read_measured(keep(tmp_path, file))
    file["encoder"]["made_from"]["frames/frostbite"]["entry"] = frames | {"seed": 7}
    with pytest.raises(FoveaError, match=r"frames/frostbite: seed not as in the recipes.*--note"):
        read_measured(keep(tmp_path, file))
    keep(tmp_path, file | {"note": "other frames"}, one("frostbite-spirl", 1, [[1.0]]))
    with pytest.raises(FoveaError, match="encoders of different settings"):
        read_measured(tmp_path)


def test_a_score_lies_in_its_interval_under_either_protocol(tmp_path: Path) -> None:
    """One seed of ten scores 90: the median of all games, resampled, is 0; the score is 9."""
    files = [one("frostbite-spirl", i, [[90.0 * (i == 0)]]) for i in range(10)]
    found = read_measured(keep(tmp_path, *files))["frostbite-spirl"]
    for protocol in ("mean", "median"):
        score = ours(found, protocol)
        assert score.mean == 9
        assert score.mean_interval[0] <= score.mean <= score.mean_interval[1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"policy": ', "malformed"),
        ("[]", "malformed"),
        (json.dumps(one("frostbite-spirl", 0, [[1.0]]) | {"checkpoints": []}), "no games after"),
        (json.dumps(one("frostbite-spirl", 0, [[float("nan")]])), "malformed"),
        (json.dumps(one("frostbite-spirl", 0, [[1.0]], games=49)), "malformed"),
        (json.dumps(one("frostbite-spirl", 0, [[1.0]], run={})), "malformed"),
        (json.dumps(one("frostbite-spirl", 1, [[1.0]])), "rename"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "frostbite-spirl-seed-0.json").write_text(text)
    with pytest.raises(FoveaError, match=rf"frostbite-spirl-seed-0\.json.*{told}"):
        read_measured(tmp_path)


def changed(table: str, **values: object) -> dict[str, Any]:
    file = one("frostbite-spirl", 0, [[1.0]])
    where = {"entry": file["entry"], "encoder": file["encoder"], "file": file}[table]
    where |= values
    return file


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (changed("entry", learning_rate=3e-4), "learning_rate not as in the recipes"),
        (changed("entry", features={"max_ratio": 0.5}), "features not as in the recipes"),
        (changed("entry", features={}), "features not as in the recipes"),
        (changed("entry", colour="red"), "colour not as in the recipes"),
        (changed("entry", checkpoint_every=50_000), "checkpoint_every not as"),
        (changed("file", epsilon=0.05), "epsilon not as in the recipes"),
        (changed("encoder", frames=2000), "count of frames.*--note"),
        (changed("encoder", entry={"model": "mae", "epochs": 10}), "epochs.*--note"),
    ],
)
def test_other_settings_are_refused_when_read(
    tmp_path: Path, file: dict[str, Any], told: str
) -> None:
    with pytest.raises(FoveaError, match=rf"frostbite-spirl-seed-0\.json.*{told}"):
        read_measured(keep(tmp_path, file))


@pytest.mark.parametrize("name", ["spirl", "visarl"])
def test_an_entry_is_itself_after_it_was_kept(name: str) -> None:
    """A tuple comes back from JSON as a list."""
    for entry in params.load(recipes()[name]):
        kept = json.loads(json.dumps(entry.resolved(settings.FREE)))
        assert settings.differences(kept, entry) == []
        assert settings.differences(kept | {"seed": -1}, entry)


def test_a_setting_that_came_later_was_its_default_before(tmp_path: Path) -> None:
    file = one("frostbite-spirl", 0, [[1.0]])
    del file["entry"]["sigma"]
    assert read_measured(keep(tmp_path, file))


def test_a_shorter_pretraining_is_taken_with_a_note_but_not_mixed(tmp_path: Path) -> None:
    short = changed("encoder", frames=2000) | {"note": "2,000 frames"}
    (kept,) = read_measured(keep(tmp_path, short))["frostbite-spirl"]
    assert kept.encoder.frames == 2000
    assert "| frostbite-mae | `dddddddddddd` | 2,000 | 50 |" in render(
        [read_claims(PAPER)], Measured({"frostbite-spirl": [kept]}, {}, {})
    )
    keep(tmp_path, one("frostbite-spirl", 1, [[1.0]]))
    with pytest.raises(FoveaError, match=r"frostbite-spirl: seeds on encoders of different"):
        read_measured(tmp_path)


def artifacts(root: Path, returns: float = 4.0, failed: str | None = None, **changed: Any) -> Path:
    """A finished evaluation of frostbite-spirl, as its stages leave it."""
    file = one("frostbite-spirl", 0, [[returns]]) | {
        key: value for key, value in changed.items() if key in ("games", "epsilon")
    }
    encoder = SPIRL.entry("encoders", "frostbite-mae").resolved()
    entry = file["entry"] | {k: v for k, v in changed.items() if k not in file}
    evaluation = {
        "games": file["games"],
        "epsilon": file["epsilon"],
        "seeds": [{"seed": 0, "failed": failed, "checkpoints": file["checkpoints"]}],
        "random": file["random"],
    }
    evaluation["seeds"][0]["checkpoints"][0]["step"] = entry["steps"]
    if failed:
        evaluation["seeds"][0]["checkpoints"] = []
    inputs: dict[str, str] = {}
    for label, made in (
        ("encoders/frostbite-mae", encoder),
        ("policies/frostbite-spirl", entry),
        ("evaluations/frostbite-spirl", {}),
    ):
        folder = root / label
        folder.mkdir(parents=True)
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
        metrics = {"frames": 5000, "parameters": 790_784}
        artifact.seal(folder, label, entry=made, inputs=inputs, metrics=metrics)
        inputs[label] = artifact.open_artifact(label, root).digest
    (root / ".runs").mkdir()
    (root / ".runs/train-frostbite-spirl.json").write_text(json.dumps(file["run"]))
    return root


def test_adding_keeps_one_readable_file_a_seed(tmp_path: Path) -> None:
    root = artifacts(tmp_path / "artifacts", seeds=1)  # fewer seeds are no other training
    (path,) = add("frostbite-spirl", "a note", root=root, folder=tmp_path / "kept")
    (seed,) = read_measured(tmp_path / "kept")["frostbite-spirl"]
    assert path.name == "frostbite-spirl-seed-0.json"
    assert seed.games("mean").tolist() == [4.0] * 50 and seed.note == "a note"
    assert seed.encoder.frames == 5000 and seed.encoder.run is None  # no record of it was there
    assert len(path.read_text().splitlines()) > 10
    before = path.read_bytes()
    add("frostbite-spirl", "a note", root=root, folder=tmp_path / "kept")  # again changes nothing
    assert path.read_bytes() == before


def test_a_policy_of_which_every_seed_failed_is_kept(tmp_path: Path) -> None:
    root = artifacts(tmp_path / "artifacts", failed="seed 0: the loss is not finite at step 7")
    add("frostbite-spirl", root=root, folder=tmp_path / "kept")
    (seed,) = read_measured(tmp_path / "kept")["frostbite-spirl"]
    assert seed.failed == "seed 0: the loss is not finite at step 7" and seed.steps == ()
    assert seed.games("mean").mean() == 1.5  # the random policy's


def test_adding_joins_seeds_measured_elsewhere(tmp_path: Path) -> None:
    keep(tmp_path, one("frostbite-spirl", 3, [[9.0]]))
    add("frostbite-spirl", root=artifacts(tmp_path / "artifacts"), folder=tmp_path)
    assert [seed.seed for seed in read_measured(tmp_path)["frostbite-spirl"]] == [0, 3]


def test_seeds_added_later_leave_the_record_of_those_kept(tmp_path: Path) -> None:
    """The run that goes from one seed to two trained the second alone."""
    root = artifacts(tmp_path / "artifacts")
    (first,) = add("frostbite-spirl", root=root, folder=tmp_path / "kept")
    before = first.read_bytes()
    played = artifact.open_artifact("evaluations/frostbite-spirl", root)
    path = played.folder / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation["seeds"].append(evaluation["seeds"][0] | {"seed": 1})
    path.write_text(json.dumps(evaluation))
    made = {key: played.manifest[key] for key in ("entry", "inputs", "metrics")}
    artifact.seal(played.folder, played.label, **made)
    record = root / ".runs/train-frostbite-spirl.json"
    later = json.loads(record.read_text()) | {"commit": "def", "wall_seconds": 7200.0}
    record.write_text(json.dumps(later))
    (added,) = add("frostbite-spirl", root=root, folder=tmp_path / "kept")
    assert added.name == "frostbite-spirl-seed-1.json" and first.read_bytes() == before
    runs = [seed.run for seed in read_measured(tmp_path / "kept")["frostbite-spirl"]]
    assert [(run.commit, run.hours) for run in runs] == [("abc", 1.0), ("def", 2.0)]


def test_a_record_of_another_artifact_of_that_name_does_not_count(tmp_path: Path) -> None:
    root = artifacts(tmp_path / "artifacts")
    record = root / ".runs/train-frostbite-spirl.json"
    told = json.loads(record.read_text())
    record.write_text(json.dumps(told | {"digest": "of the quick recipe's"}))
    with pytest.raises(FoveaError, match=r"train-frostbite-spirl\.json: tells nothing of"):
        add("frostbite-spirl", root=root, folder=tmp_path / "kept")
    trained = artifact.open_artifact("policies/frostbite-spirl", root)
    record.write_text(json.dumps(told | {"digest": trained.digest}))
    add("frostbite-spirl", root=root, folder=tmp_path / "kept")


def test_a_seed_is_not_measured_again_until_it_suits(tmp_path: Path) -> None:
    add("frostbite-spirl", root=artifacts(tmp_path / "first"), folder=tmp_path)
    second = artifacts(tmp_path / "second", returns=400.0)
    with pytest.raises(FoveaError, match=r"seed-0\.json: seed 0 is measured already"):
        add("frostbite-spirl", root=second, folder=tmp_path)
    (seed,) = read_measured(tmp_path)["frostbite-spirl"]
    assert seed.games("mean").mean() == 4.0


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 3_000},
        {"features": {"max_ratio": 0.5}},
        {"epsilon": 0.05},
        {"update_every": 4},
    ],
)
def test_runs_at_other_settings_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    root = artifacts(tmp_path / "artifacts", **change)
    with pytest.raises(FoveaError, match=rf"{next(iter(change))} not as in the recipes"):
        add("frostbite-spirl", root=root, folder=tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_a_policy_of_the_quick_recipe_only_is_refused(tmp_path: Path) -> None:
    file = one("frostbite-spirl", 0, [[1.0]]) | {"policy": "breakout-spirl"}
    with pytest.raises(FoveaError, match="breakout-spirl stands in none of"):
        read_measured(keep(tmp_path, file))


def test_an_evaluation_of_older_weights_is_refused(tmp_path: Path) -> None:
    root = artifacts(tmp_path / "artifacts")
    policy = root / "policies/frostbite-spirl"
    manifest = artifact.open_artifact("policies/frostbite-spirl", root).manifest
    artifact.seal(
        policy,
        "policies/frostbite-spirl",
        entry=manifest["entry"],
        inputs=manifest["inputs"],
        metrics={"trained": "again"},
    )
    with pytest.raises(FoveaError, match="not made from the policies/frostbite-spirl"):
        add("frostbite-spirl", root=root, folder=tmp_path)


def test_the_command_adds_from_another_clone_and_renders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = artifacts(tmp_path / "clone", steps=3_000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["results"])
    main()
    assert (tmp_path / RESULTS).read_text("utf-8") == page()
    before = sorted(measured.MEASURED.iterdir())
    words = ["results", "add", "frostbite-spirl", "--artifacts", str(root)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="steps not as in the recipes"):
        main()
    assert sorted(measured.MEASURED.iterdir()) == before
