"""Records: which are refused when read, and with which settings they are accepted."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datasets.errors import FoveaError
from pipeline import params
from pipeline.commands.recipe import recipes
from pipeline.config.tables import Params
from pipeline.results import record
from pipeline.results.claims import Cell
from pipeline.results.comparisons import failed, samples
from pipeline.results.record import FREE, Record, differences, read_records
from tests.pipeline.results.some_records import (
    SMALL,
    SPIRL,
    exam_of,
    keep,
    probe_of,
    saliency_of,
    seed_of,
)

SEED = seed_of("frostbite-spirl", 0, [[1.0]])


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    seeds = [seed_of("frostbite-spirl", seed, [[1.0]]) for seed in (10, 2)]
    folder = keep(tmp_path, *seeds)
    assert read_records(folder) == {"policies/frostbite-spirl": [seeds[1], seeds[0]]}
    text = (folder / "policies/frostbite-spirl-seed-2.json").read_text()
    assert len(text.splitlines()) == 11  # a key a line


@pytest.mark.parametrize("text", ['{"artifact": ', "[]", "{}"])
def test_a_malformed_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(FoveaError, match=r"x\.json: malformed"):
        read_records(tmp_path)


def alter(one: Record, *keys: str, to: object = None, drop: bool = False) -> Record:
    """A record with one value changed, found by its keys; a label as key may contain a `/`."""
    other = copy.deepcopy(one)
    value: Any = getattr(other, keys[0])
    for key in keys[1:-1]:
        value = value[int(key) if isinstance(value, list) else key]
    if drop:
        del value[keys[-1]]
    else:
        value[keys[-1]] = to
    return other


OWN = ("made_from", "policies/frostbite-spirl", "entry")
ENCODER = ("made_from", "encoders/frostbite-mae", "entry")


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (alter(SEED, "scores", "checkpoints", to=[]), "malformed.*episodes after"),
        (alter(SEED, "scores", "games", to=49), "malformed.*must be 49 episodes"),
        (alter(SEED, "scores", "checkpoints", "0", "returns", to=[float("nan")] * 50), "finite"),
        (alter(SEED, "scores", "random", "successes", to=[1.0] * 50), "malformed"),
        (alter(SEED, "runs", "train-frostbite-spirl", to={}), "malformed"),
        (alter(SEED, *OWN, "learning_rate", to=3e-4), "learning_rate not as in the recipe"),
        (alter(SEED, *OWN, "features", to={"max_ratio": 0.5}), "features not as"),
        (alter(SEED, *OWN, "features", drop=True), "features not as"),
        (alter(SEED, *OWN, "colour", to="red"), "colour not as"),
        (alter(SEED, *OWN, "checkpoint_every", to=50_000), "checkpoint_every not as"),
        (alter(SEED, "scores", "epsilon", to=0.05), "epsilon not as"),
        (alter(SEED, *ENCODER, "epochs", to=10), "frostbite-mae: epochs not as.*--note"),
        (alter(SEED, "made_from", "frames/frostbite", "entry", "count", to=9), "count.*--note"),
        (replace(SEED, measured_on={"frames/frostbite": SEED.made_from["frames/frostbite"]}),
         "measured on frames/frostbite, which it was made from"),
    ],
)  # fmt: skip
def test_invalid_records_are_named(tmp_path: Path, one: Record, message: str) -> None:
    with pytest.raises(FoveaError, match=rf"frostbite-spirl-seed-0\.json: .*{message}"):
        read_records(keep(tmp_path, one))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: alter(probe_of(r, "reach-mae-s0", pooled=0.5), "scores", "splits", to=[0]),
         "malformed.*must be 1 numbers"),
        (lambda r: alter(probe_of(r, "reach-mae-s0", pooled=0.5), "measured_on", "frames/unseen",
                           "entry", "seed", to=0), "frames/unseen: seed not as.*--note"),
        (lambda r: alter(saliency_of(r, "near", 0.1), "scores", "judged", "mae",
                           to=float("nan")), "malformed.*finite"),
        (lambda r: alter(saliency_of(r, "near", 0.1), "scores", "judged", "zero_mae", drop=True),
         "malformed.*zero_mae"),
        (lambda r: alter(exam_of(r, "reach-mae-s0", source=0.5), "scores", "detected", "source",
                           "recall", to=float("nan")), "malformed.*finite"),
        (lambda r: alter(exam_of(r, "reach-mae-s0", source=0.5), "scores", "detected", "k",
                           to="x"), "malformed"),
        (lambda r: alter(saliency_of(r, "near", 0.1), "scores", "looked",
                           to={"source": {"nss": [0.5, 21]}}), "malformed.*0.5 of 21 frames"),
    ],
)  # fmt: skip
def test_invalid_probes_and_scores_of_saliency_are_named(
    tmp_path: Path, small: Params, change: Callable[[Params], Record], message: str
) -> None:
    with pytest.raises(FoveaError, match=message):
        read_records(keep(tmp_path / "kept", change(small)))


def test_a_file_of_another_name_and_an_artifact_of_no_recipe_are_refused(tmp_path: Path) -> None:
    folder = keep(tmp_path, SEED)
    path = folder / "policies/frostbite-spirl-seed-0.json"
    path.rename(path.with_name("frostbite-spirl-seed-1.json"))
    with pytest.raises(FoveaError, match=r"seed-1\.json: is .*seed-0\.json; rename"):
        read_records(folder)
    text = json.dumps(json.loads(path.with_name("frostbite-spirl-seed-1.json").read_text()))
    path.with_name("frostbite-spirl-seed-1.json").unlink()
    quick = text.replace("frostbite-spirl", "breakout-spirl")  # of the quick recipe only
    (folder / "policies/breakout-spirl-seed-0.json").write_text(quick)
    with pytest.raises(FoveaError, match="policies/breakout-spirl is in none of"):
        read_records(folder)


def test_another_encoder_is_accepted_with_a_note_but_not_mixed(tmp_path: Path) -> None:
    short = replace(alter(SEED, *ENCODER, "epochs", to=10), note="10 epochs")
    (one,) = read_records(keep(tmp_path, short))["policies/frostbite-spirl"]
    assert one.note == "10 epochs"
    keep(tmp_path, seed_of("frostbite-spirl", 1, [[1.0]]))
    with pytest.raises(FoveaError, match="frostbite-spirl: its seeds have encoders of different"):
        read_records(tmp_path)


def test_early_records_have_only_the_count_of_frames(tmp_path: Path) -> None:
    frames = "made_from", "frames/frostbite"
    early = alter(SEED, *frames, to={"digest": None, "entry": {"count": 5000}})
    later = seed_of("frostbite-spirl", 1, [[1.0]])
    assert len(read_records(keep(tmp_path, early, later))["policies/frostbite-spirl"]) == 2
    keep(tmp_path, alter(early, *frames, "entry", "count", to=9))
    with pytest.raises(FoveaError, match="frames/frostbite: count"):
        read_records(tmp_path)


def test_a_policy_s_seed_is_a_source_too(tmp_path: Path) -> None:
    """Its record of an exam is beside that of its episodes, and no score of the policy."""
    on = {"annotations/x": {"digest": "d" * 64, "entry": {}}}
    judged = {"frames": 20, "judged": {"mae": 0.1, "zero_mae": 0.2}, "own": {}}
    one = replace(SEED, on="annotations/x", scores=judged, measured_on=on, note="not in a recipe")
    folder = keep(tmp_path, SEED, one)
    both = read_records(folder)["policies/frostbite-spirl"]
    assert [(r.on, r.evaluated) for r in both] == [(None, True), ("annotations/x", False)]
    assert both[1].path.name == "frostbite-spirl-seed-0-on-x.json"
    cell = Cell("SPIRL", "Frostbite", (("frostbite-spirl",),))
    assert len(samples(cell, "mean", {SEED.artifact: both})) == 1 and failed(cell, {}) == 0


@pytest.mark.parametrize("name", ["spirl", "visarl"])
def test_an_entry_is_equal_to_its_record(name: str) -> None:
    """A tuple becomes a list in JSON."""
    for entry in params.load(recipes()[name]):
        recorded = json.loads(json.dumps(entry.resolved(FREE)))
        assert differences(recorded, entry) == []
        assert differences(recorded | {"seed": -1}, entry)


def test_a_setting_that_a_record_lacks_is_the_default(tmp_path: Path) -> None:
    assert read_records(keep(tmp_path, alter(SEED, *OWN, "sigma", drop=True)))
    entry = SPIRL.entry("encoders", "frostbite-mae")
    assert "sigma" not in entry.resolved()


def test_of_several_recipes_the_complete_one_counts(
    tmp_path: Path, small: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe may contain a predictor without annotations to score it on."""
    path = tmp_path / "borrows.yaml"
    path.write_text("".join(s for s in SMALL.splitlines(keepends=True) if "further" not in s))
    both = {"borrows": params.load(path), "small": small}
    monkeypatch.setattr(record, "checked_recipes", lambda: both)
    one = saliency_of(small, "near", 0.01)
    assert read_records(keep(tmp_path / "kept", one))
    assert record.home_of(one.artifact, one.measured_on) == "small"
