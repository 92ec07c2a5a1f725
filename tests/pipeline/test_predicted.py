"""Scores of saliency that are kept: what is refused, and what a page says of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from datasets.errors import FoveaError
from pipeline import params
from pipeline.config.tables import Params
from pipeline.results import predicted, settings
from pipeline.results.claims import read_claims
from pipeline.results.judged import Measured
from pipeline.results.predicted import add_predicted, read_predicted, summary
from pipeline.results.render import render
from tests.pipeline.one_recipe import RUN, only_recipe

RECIPE = """
frames:
  reach: {env: metaworld/reach, source: expert, count: 96}
  further: {env: metaworld/reach, source: expert, count: 48, seed: 1}
annotations:
  reach: {frames: reach, annotator: simulated, count: 5}
  further: {frames: further, annotator: simulated, count: 20, seed: 1}
predictors:
  near: {data: annotations/reach, model: centre}
  far: {data: annotations/reach, model: centre, sigma: 0.5}
saliency: {}
encoders: {}
policies: {}
"""
LEDGER = """
paper: "A: paper"
tables: []
lines:
  - {what: "Table V", paper: "MAE 0.002", why: "later", predictors: [near, far]}
"""
FILE = "predictors-near-on-further.json"


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    return only_recipe(RECIPE, predicted, tmp_path, monkeypatch)


def judged(recipe: Params, name: str, mae: float, **f: float) -> dict[str, Any]:
    """What `python -m pipeline.commands.judge` finds of a predictor."""

    def made(*labels: str) -> dict[str, Any]:
        return {
            label: {
                "digest": hashlib.sha256(label.encode()).hexdigest(),
                "entry": recipe.entry(*label.split("/")).resolved(),
            }
            for label in labels
        }

    return {
        "source": f"predictors/{name}",
        "annotations": "annotations/further",
        "frames": 20,
        "scores": {"mae": mae, "zero_mae": 0.015, "centre_mae": 0.2, **f},
        "held_out": {
            "held_out": 2,
            "f_max": 0.4375,
            "mae": 0.0625,
            "zero_mae": 0.018,
            "steps": 300,
        },
        "made_from": made(f"predictors/{name}", "annotations/reach", "frames/reach"),
        "judged_on": made("annotations/further", "frames/further"),
    }


def keep(folder: Path, *files: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for file in files:
        path = folder / f"{file['source'].replace('/', '-')}-on-further.json"
        path.write_text(json.dumps({"note": "", "run": RUN} | file))
    return folder


def test_means_and_deviations_over_the_sources_of_a_line(tmp_path: Path, recipe: Params) -> None:
    near = judged(recipe, "near", 0.01, f_max=0.5, centre_f_max=0.1)
    far = judged(recipe, "far", 0.02, f_max=0.7, centre_f_max=0.1)
    found = read_predicted(keep(tmp_path / "kept", near, far))
    path = tmp_path / "paper.yaml"
    path.write_text(LEDGER)
    page = render([read_claims(path)], Measured({}, {}, found))
    # Deviations of two numbers d apart are d / sqrt(2).
    assert "MAE 0.0150 (0.0071), F 0.600 (0.141)" in page
    assert "nothing anywhere has MAE 0.0150 (0.0000)" in page
    assert "(near, far; 40 frames, simulated clicks)" in page
    assert (
        "| far | 20 of further, simulated clicks | 0.700 (0.100) |  | 0.0200 (0.0150, 0.2000) |"
        in page
    )
    assert (
        "| 300 | 2 | 0.438 | 0.0625 (0.0180) |  | `abc`, 2 cores, a processor, no GPU, 0:01 h |"
        in page
    )
    assert "none" not in page[page.index("## Saliency") : page.index("## How to read")]
    one = summary(found, ["predictors/near", "predictors/none"])
    assert "MAE 0.0100, F 0.500;" in one and "(near, 1 of 2 so far; 20 frames" in one
    both = {"redrawn_f_max": 0.75, "redrawn_mae": 0.005}
    again = judged(recipe, "near", 0.01, f_max=0.5, **both)
    again["held_out"]["taught_f_max"] = 0.625
    told = read_predicted(keep(tmp_path / "again", again))
    assert ", the clicks drawn a second time MAE 0.0050, F 0.750 (near;" in summary(
        told, ["predictors/near"]
    )
    page = render([read_claims(path)], Measured({}, {}, told))
    assert "| 0.0100 (0.0150, 0.2000, 0.0050) | 300 | 2 |" in page and "| 0.625 | `abc`," in page
    unmarked = read_predicted(keep(tmp_path / "unmarked", judged(recipe, "near", 0.01)))
    assert "F none;" in summary(unmarked, ["predictors/near"])
    assert "not run: later" in render([read_claims(path)], Measured({}, {}, {}))


def test_a_student_stands_beside_its_teacher(tmp_path: Path, recipe: Params) -> None:
    teacher = judged(recipe, "far", 0.01, f_max=0.5)
    student = judged(recipe, "near", 0.01, f_max=0.4)
    student["made_from"] |= {"predictors/far": teacher["made_from"]["predictors/far"]}
    found = read_predicted(keep(tmp_path / "kept", teacher, student))
    told = summary(found, ["predictors/near"])
    assert ", their teachers F 0.500 (near;" in told
    assert ", F at most 0.01 below their teachers' for 0 of 1 (-0.100).**" in told
    assert "teachers" not in summary(found, ["predictors/far"])
    student["scores"]["f_max"] = 0.4901
    near = read_predicted(keep(tmp_path / "near", teacher, student))
    assert "for 1 of 1 (-0.010)" in summary(near, ["predictors/near"])
    student["made_from"]["predictors/far"] = {"digest": "e" * 64, "entry": {}}
    other = read_predicted(keep(tmp_path / "other", teacher, student | {"note": "another's"}))
    assert "teachers" not in summary(other, ["predictors/near"])  # that one is another fit


def test_a_line_begins_with_what_its_numbers_come_to(tmp_path: Path, recipe: Params) -> None:
    """Against zeros, whose error is 0.015 here, and against the clicks drawn a second time."""

    def told(near: dict[str, Any], far: dict[str, Any]) -> str:
        found = read_predicted(keep(tmp_path / "kept", near, far))
        return summary(found, ["predictors/near", "predictors/far"]).partition(" MAE")[0]

    low, high = judged(recipe, "near", 0.01), judged(recipe, "far", 0.02)
    assert told(low, high) == "**Error below that of nothing anywhere for 1 of 2.**"
    assert told(judged(recipe, "near", 0.03), high) == "**Error above that of nothing anywhere.**"
    known = judged(recipe, "near", 0.01, f_max=0.6, redrawn_f_max=0.75)
    share = ", F 80 % of that of the clicks drawn a second time"
    assert told(known, judged(recipe, "far", 0.01, f_max=0.1)) == (
        f"**Error below that of nothing anywhere{share} (1 of 2 known).**"
    )
    both = judged(recipe, "far", 0.01, f_max=0.3, redrawn_f_max=0.5)
    assert told(known, both) == "**Error below that of nothing anywhere, F 70 %" + share[8:] + ".**"


def test_what_learned_from_no_maps_has_none_held_out(tmp_path: Path, recipe: Params) -> None:
    motion = judged(recipe, "near", 0.01) | {"held_out": {"frames": 96}}
    found = read_predicted(keep(tmp_path / "kept", motion))
    assert "| 0.0100 (0.0150, 0.2000) |  |  |  |  |  | `abc`" in render([], Measured({}, {}, found))


def test_of_several_recipes_the_one_with_the_judges_too_counts(
    tmp_path: Path, recipe: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe may borrow a predictor and have nothing to judge it on."""
    path = tmp_path / "borrows.yaml"
    path.write_text("".join(s for s in RECIPE.splitlines(keepends=True) if "  further" not in s))
    both = {"borrows": params.load(path), "small": recipe}
    monkeypatch.setattr(settings, "checked_recipes", lambda: both)
    assert read_predicted(keep(tmp_path / "kept", judged(recipe, "near", 0.01)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scores": {"mae": 0.01}}, "malformed.*zero_mae"),
        ({"scores": {"f_max": 0.5}}, "malformed"),
        ({"scores": {"mae": float("nan")}}, "malformed"),
        ({"source": "predictors/far"}, "malformed"),
        ({"source": "annotations/reach"}, "holds the scores of annotations-reach-on-further"),
        ({"annotations": "annotations/none"}, "malformed"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(
    tmp_path: Path, recipe: Params, change: dict[str, Any], told: str
) -> None:
    folder = keep(tmp_path / "kept", judged(recipe, "near", 0.01))
    written = json.loads((folder / FILE).read_text()) | change
    (folder / FILE).write_text(json.dumps(written))
    with pytest.raises(FoveaError, match=rf"{FILE}: .*{told}"):
        read_predicted(folder)
    (folder / FILE).write_text("{")
    with pytest.raises(FoveaError, match=rf"{FILE}: malformed"):
        read_predicted(folder)


def test_a_line_names_predictors_that_a_recipe_has(tmp_path: Path) -> None:
    path = tmp_path / "paper.yaml"
    path.write_text(LEDGER.replace("near, far", "near, lost"))
    with pytest.raises(FoveaError, match=r"paper.yaml: no recipe has predictors/lost"):
        read_claims(path)


def test_what_was_judged_is_kept_with_the_run_that_made_it(tmp_path: Path, recipe: Params) -> None:
    root, folder = tmp_path / "artifacts", tmp_path / "kept"
    words = "annotations/further", "predictors/near"
    with pytest.raises(
        FoveaError, match=r"pipeline.commands.judge annotations/further predictors/near"
    ):
        add_predicted(*words, root=root, folder=folder)
    (root / ".runs/judge").mkdir(parents=True)
    file = judged(recipe, "near", 0.01)
    (root / ".runs/judge" / FILE).write_text(json.dumps(file))
    (root / ".runs/fit-near.json").write_text(json.dumps(RUN))
    path = add_predicted(*words, root=root, folder=folder)
    (kept,) = read_predicted(folder)["predictors/near"]
    assert path.name == FILE and kept.run is not None and kept.run.commit == "abc"
    file["judged_on"]["frames/further"]["entry"]["count"] = 9
    (root / ".runs/judge" / FILE).write_text(json.dumps(file))
    with pytest.raises(FoveaError, match=r"frames/further: count not as in the recipes.*--note"):
        add_predicted(*words, root=root, folder=folder)
    add_predicted(*words, "few", root=root, folder=folder)
    assert read_predicted(folder)["predictors/near"][0].note == "few"
