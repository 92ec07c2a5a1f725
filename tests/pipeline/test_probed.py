"""Probes that are kept: rows of a table, what is refused, and what a page says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.errors import FoveaError
from pipeline.commands.probe import POINTS, WORLD
from pipeline.config.tables import Params
from pipeline.results import probed
from pipeline.results.claims import Claims, read_claims
from pipeline.results.judged import Measured, compare
from pipeline.results.probed import CONTROL, add_probe, read_probed, with_pooled
from pipeline.results.render import fragment, render
from tests.pipeline.one_recipe import RUN, only_recipe

RECIPE = """
frames:
  reach: {env: metaworld/reach, source: expert, count: 96}
  unseen: {env: metaworld/reach, source: expert, count: 48, seed: 1}
annotations: {}
predictors: {}
saliency: {}
encoders:
  reach-mae-s0: {data: frames/reach, model: mae, patch: 8}
  reach-mae-s1: {data: frames/reach, model: mae, patch: 8, seed: 1}
  reach-mae-s2: {data: frames/reach, model: mae, patch: 8, seed: 2}
  reach-pixels: {data: frames/reach, model: pixels}
policies: {}
"""
LEDGER = """
paper: "A: paper"
tables:
  - name: "Our proxy"
    recipe: small
    protocol: probe
    trials: 0
    why: "later, as it takes hours"
    brief: "takes hours"
    scores:
      reach-mae: [MAE, Reach, null, null]
      "reach-mae, tokens": [all tokens, Reach, null, null]
      reach-pixels: [pixels, Reach, null, null]
    comparisons:
      - ["reach-mae, tokens", reach-mae]
      - [reach-mae, "reach-mae, tokens"]
      - [reach-mae, reach-pixels]
lines: []
"""


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    return only_recipe(RECIPE, probed, tmp_path, monkeypatch)


def paper(tmp_path: Path) -> Claims:
    path = tmp_path / "paper.yaml"
    path.write_text(LEDGER)
    return read_claims(path)


def one(recipe: Params, encoder: str, **r2: float) -> dict[str, Any]:
    """The file of an encoder whose readings have these R² at the points of the image."""

    def scores(value: float) -> dict[str, Any]:
        image = {f"image {point}": [value - 0.01, value, value + 0.01] for point in POINTS}
        world = {name: [0.0, 0.0, 0.0] for name in (f"world {place}" for place in WORLD)}
        return {
            place: {"r2": found, "error": [1.0, 2.0, 3.0], "penalty": [0.1] * 3}
            for place, found in (image | world).items()
        }

    def made(label: str) -> dict[str, Any]:
        return {"digest": "d" * 64, "entry": recipe.entry(*label.split("/")).resolved()}

    return {
        "encoder": encoder,
        "made_from": {label: made(label) for label in (f"encoders/{encoder}", "frames/reach")},
        "frames": {"frames/unseen": made("frames/unseen")},
        "rows": 48,
        "left_out": 0,
        "episodes": 8,
        "splits": [0, 1, 2],
        "scores": {CONTROL: scores(0.0)} | {name: scores(value) for name, value in r2.items()},
        "versions": {},
        "note": "",
        "run": RUN,
        "pretraining": RUN,
    }


def keep(folder: Path, *files: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for file in files:
        (folder / f"{file['encoder']}.json").write_text(json.dumps(file))
    return folder


def three(recipe: Params, folder: Path) -> Path:
    maes = [one(recipe, f"reach-mae-s{i}", pooled=0.5 + i / 50, tokens=0.8) for i in range(3)]
    return keep(folder, *maes, one(recipe, "reach-pixels", pixels=0.9))


def test_seeds_of_an_encoder_are_a_row_and_each_reading_another(
    tmp_path: Path, recipe: Params
) -> None:
    found = read_probed(three(recipe, tmp_path / "kept"))
    assert {row: [one.seed for one in ones] for row, ones in found.items()} == {
        "reach-mae": ["s0", "s1", "s2"],
        "reach-mae, tokens": ["s0", "s1", "s2"],
        "reach-pixels": [""],
    }
    assert np.allclose(found["reach-mae"][1].games("probe"), [0.51, 0.52, 0.53])


def test_a_point_that_never_moves_does_not_count(tmp_path: Path, recipe: Params) -> None:
    file = one(recipe, "reach-pixels", pixels=0.6)
    file["scores"]["pixels"]["image tip"]["r2"] = [0.3, 0.3, 0.3]
    file["scores"]["pixels"]["image goal"]["r2"] = [None, None, None]
    (found,) = read_probed(keep(tmp_path / "kept", file))["reach-pixels"]
    assert np.allclose(found.games("probe"), [0.445, 0.45, 0.455])


def test_rows_of_several_tasks_are_one_seed_by_seed(tmp_path: Path, recipe: Params) -> None:
    """Seeds that one of them lacks are left out, and so is a row while one of its parts is."""
    kept = read_probed(three(recipe, tmp_path / "kept"))
    joint, half = "reach-mae + reach-mae, tokens", "reach-mae + reach-pixels"
    rows = with_pooled(kept, ["reach-mae", joint, half, "reach-mae + reach-none"])
    assert rows.keys() == kept.keys() | {joint}
    for i, found in enumerate(rows[joint]):
        assert np.allclose(found.games("probe"), 0.65 + i / 100 + np.array([-0.01, 0, 0.01]))
    assert len(rows[joint]) == 3


def test_a_row_may_be_of_one_point(tmp_path: Path, recipe: Params) -> None:
    files = [one(recipe, f"reach-mae-s{i}", pooled=0.5, tokens=0.8) for i in range(3)]
    for i, file in enumerate(files):
        file["scores"]["tokens"]["image object"]["r2"] = [0.1 * i] * 3
    kept = read_probed(keep(tmp_path / "kept", *files))
    row, joint = "reach-mae, tokens, object", "reach-mae, object + reach-mae, tokens, object"
    rows = with_pooled(kept, [row, joint, "reach-mae, tokens, puck", "reach-none, object"])
    assert rows.keys() == kept.keys() | {row, joint}
    for i in range(3):
        assert np.allclose(rows[row][i].games("probe"), 0.1 * i)
        assert np.allclose(rows[joint][i].games("probe").mean(), (0.5 + 0.1 * i) / 2)


def test_our_own_questions_hold_or_do_not_and_the_page_says_so(
    tmp_path: Path, recipe: Params
) -> None:
    asked, kept = paper(tmp_path), Measured({}, read_probed(three(recipe, tmp_path / "kept")), {})
    assert [one.word for one in compare(asked, kept)] == ["holds", "does not hold", "under-powered"]
    page = render([asked], kept)
    told = "Questions of our own, 3: 1 holds, 1 does not hold, 1 under-powered, 0 not run."
    assert told in page and "3 of the 3 probes" in page
    assert "R² of linear probes, not in the paper." in page
    assert "| Reach | MAE | no number | 0.520 [" in page
    assert "reproduced," not in page[: page.index("## How to read this")]
    assert "| reach-mae | 3 | 48 of frames/unseen, 8 episodes | 0.52, 2.0 px |" in page
    assert "| 0.00, 200.0 cm |" in page
    rows = [line for line in page.splitlines() if line.startswith("| reach-mae, tokens |")]
    heads = [line for line in page.splitlines() if line.startswith("| encoder | seeds |")]
    assert {row.count("|") for row in rows} == {heads[0].count("|")}
    assert "<strong>does not hold</strong>" in fragment([asked], kept)
    nothing = render([asked], Measured({}, {}, {}))
    assert "0 holds, 0 does not hold, 0 under-powered, 3 not run" in nothing
    assert "| no number |  |  | not run, takes hours: MAE and pixels |" in nothing


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda file: file.pop("rows"), "malformed"),
        (lambda file: file["splits"].append(3), "malformed"),
        (lambda file: file.update(encoder="reach-mae-s9"), "holds the probe of|malformed"),
        (
            lambda file: file["made_from"]["frames/reach"]["entry"].update(count=9),
            "frames/reach: count",
        ),
        (
            lambda file: file["made_from"]["encoders/reach-mae-s0"]["entry"].update(epochs=1),
            "reach-mae-s0: epochs not as in the recipes.*--note",
        ),
        (lambda file: file["frames"]["frames/unseen"]["entry"].update(seed=0), "unseen: seed"),
    ],
)
def test_files_that_cannot_stand_are_named(
    tmp_path: Path, recipe: Params, change: Any, told: str
) -> None:
    file = one(recipe, "reach-mae-s0", pooled=0.5)
    change(file)
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "reach-mae-s0.json").write_text(json.dumps(file))
    with pytest.raises(FoveaError, match=rf"reach-mae-s0\.json.*({told})"):
        read_probed(folder)


def test_an_encoder_of_no_recipe_and_other_frames_in_a_row_are_refused(
    tmp_path: Path, recipe: Params
) -> None:
    file = one(recipe, "reach-mae-s0", pooled=0.5)
    text = json.dumps(file).replace("reach-mae-s0", "reach-mea-s0")
    folder = keep(tmp_path / "kept", json.loads(text))
    with pytest.raises(FoveaError, match="reach-mea-s0 stands in none of small"):
        read_probed(folder)
    (folder / "reach-mea-s0.json").unlink()
    fewer = one(recipe, "reach-mae-s1", pooled=0.5) | {"rows": 40}
    with pytest.raises(FoveaError, match="reach-mae: its seeds were probed on different frames"):
        read_probed(keep(folder, file, fewer))


def test_a_probe_is_kept_with_its_run(tmp_path: Path, recipe: Params) -> None:
    runs = tmp_path / "artifacts/.runs"
    (runs / "probe-reach-mae-s0").mkdir(parents=True)
    file = one(recipe, "reach-mae-s0", pooled=0.5)
    for key in ("note", "run", "pretraining"):
        del file[key]
    with pytest.raises(FoveaError, match=r"python -m pipeline.commands.probe reach-mae-s0"):
        add_probe("reach-mae-s0", root=tmp_path / "artifacts", folder=tmp_path / "kept")
    (runs / "probe-reach-mae-s0/probe.json").write_text(json.dumps(file))
    (runs / "probe-reach-mae-s0.json").write_text(json.dumps(RUN))
    path = add_probe("reach-mae-s0", root=tmp_path / "artifacts", folder=tmp_path / "kept")
    (kept,) = read_probed(path.parent)["reach-mae"]
    assert kept.run.commit == "abc" and kept.encoder.run is None and kept.encoder.frames == 96
    file["made_from"]["frames/reach"]["entry"]["count"] = 9
    (runs / "probe-reach-mae-s0/probe.json").write_text(json.dumps(file))
    with pytest.raises(FoveaError, match="--note"):
        add_probe("reach-mae-s0", root=tmp_path / "artifacts", folder=tmp_path / "kept")
    assert path.read_text().count('"count": 96') == 1  # nothing was written
    add_probe("reach-mae-s0", "few", root=tmp_path / "artifacts", folder=tmp_path / "kept")
    assert read_probed(path.parent)["reach-mae"][0].note == "few"
