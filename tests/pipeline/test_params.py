"""params.yaml is read strictly: every mistake is listed, with table, entry, key and a near miss."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from datasets.errors import FoveaError
from pipeline import params
from pipeline.recipe import recipes
from pipeline.tables import Params

GOOD = """
frames:
  frostbite: {env: atari/Frostbite, source: random, count: 2000}
annotations: {}
predictors: {}
saliency: {}
encoders:
  frostbite-mae: {data: frames/frostbite, model: mae, patch: 16}
policies:
  frostbite-spirl: {env: atari/Frostbite, encoder: frostbite-mae, agent: rainbow, seeds: 2}
"""


def load(tmp_path: Path, text: str) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return params.load(path)


def mistakes(tmp_path: Path, old: str, new: str) -> str:
    assert old in GOOD
    with pytest.raises(FoveaError) as raised:
        load(tmp_path, GOOD.replace(old, new))
    return str(raised.value)


def test_defaults_are_written_out(tmp_path: Path) -> None:
    checked = load(tmp_path, GOOD)
    encoder = checked.entry("encoders", "frostbite-mae").resolved()
    assert encoder["patch"] == 16
    assert encoder["mask"] == 0.75  # the paper's, from mae.Config
    policy = checked.entry("policies", "frostbite-spirl")
    assert policy.resolved()["steps"] == 100_000
    assert "seeds" not in policy.resolved(frozenset({"seeds"}))
    assert policy.inputs() == {"encoder": "encoders/frostbite-mae"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "atari/Frostbite, source",
            "atari/Frostbit, source",
            r"frames\.frostbite\.env.*mean Frostbite",
        ),
        ("atari/Frostbite, source", "atarri/Frostbite, source", r"frames\.frostbite\.env.*atari"),
        ("source: random", "source: randm", r"frames\.frostbite\.source.*'random'"),
        ("count: 2000", "cuont: 2000", r"cuont: unknown key; did you mean 'count'"),
        ("count: 2000", "cuont: 2000", r"frostbite\.count: missing"),
        ("count: 2000", "count: '2000'", r"count: '2000' \(str\) where int is asked"),
        ("count: 2000", "count: 2000.5", r"count: 2000.5 \(float\) where int is asked"),
        ("count: 2000", "count: true", r"count: True \(bool\) where int is asked"),
        ("count: 2000", "count: 0", r"count: 0 frames"),
        ("frames/frostbite", "frames/frostbit", r"mae\.data.*no entry.*'frames/frostbite'"),
        ("frames/frostbite", "frostbite", r"mae\.data.*no entry.*'frames/frostbite'"),
        ("model: mae", "model: maee", r"mae\.model.*'mae'"),
        ("patch: 16", "ptach: 16", r"ptach: unknown key; did you mean 'patch'"),
        ("patch: 16", "patch: 7", r"encoders\.frostbite-mae\.patch: 7"),
        ("patch: 16", "features: {select: fixed, k: 145}", r"mae\.features\.k: 145, but.* has 144"),
        ("patch: 16", "features: {slope: -1.0}", r"encoders\.frostbite-mae\.features\.slope: -1"),
        ("encoder: frostbite-mae", "encoder: frostbit-mae", r"spirl\.encoder.*'frostbite-mae'"),
        ("agent: rainbow", "agent: rainbo", r"spirl\.agent.*'rainbow'"),
        ("seeds: 2", "seeds: 0", r"seeds: 0; at least 1"),
        ("seeds: 2", "features: {max_ratio: 0}", r"features\.max_ratio"),
        ("seeds: 2", "features: {max_ratio: 1.5}", r"spirl\.features\.max_ratio: 1.5.*at most 1"),
        ("seeds: 2", "features: {select: fixed, k: 0}", r"spirl\.features\.k: 0.*at least 1"),
        ("seeds: 2", "features: {slope: .nan}", r"spirl\.features\.slope: nan.*finite"),
        ("seeds: 2", "gamma: .inf", r"spirl\.gamma: inf, must be a finite number"),
        ("seeds: 2", "features: {slope: 0}", r"spirl\.features\.slope: 0.*above 0"),
        (
            "seeds: 2",
            "features: {select: fixed, k: 37}",
            r"policies\.frostbite-spirl\.features\.k: 37, but.* has 36",
        ),
        ("seeds: 2", "features: {selct: all}", r"features\.selct: unknown key.*'select'"),
        ("seeds: 2", "features: {select: some}", r"features\.select"),
        ("annotations: {}\n", "", r"annotations: missing"),
        ("annotations: {}", "anotations: {}", r"anotations: unknown table.*'annotations'"),
        ("frostbite-mae:", "Frostbite_MAE:", r"a name is made of"),
        ("saliency: {}", "saliency: []", r"saliency: missing or not a table"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert re.search(says, mistakes(tmp_path, old, new)), mistakes(tmp_path, old, new)


def test_every_mistake_is_listed_at_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace("count: 2000", "count: -1")
        .replace("patch: 16", "patch: x")
        .replace("seeds", "sedes")
    )
    with pytest.raises(FoveaError) as raised:
        load(tmp_path, text)
    assert str(raised.value).count("\n  ") == 3


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "frames: {}\nframes: {}"])
def test_what_is_no_params_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FoveaError, match=r"params\.yaml"):
        load(tmp_path, text)


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    checked = load(tmp_path, GOOD.replace("patch: 16", "base_lr: 1e-4"))
    assert checked.entry("encoders", "frostbite-mae").config.base_lr == 1e-4


@pytest.mark.parametrize("name", sorted(recipes()))
def test_recipes_are_good(name: str) -> None:
    assert list(params.load(recipes()[name]))


def test_params_as_committed_is_the_quick_recipe() -> None:
    assert params.PARAMS.read_bytes() == recipes()["quick"].read_bytes()
