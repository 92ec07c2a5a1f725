"""The ledger: verdicts on made-up data with a known answer, measured files, RESULTS.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.errors import FoveaError
from pipeline import artifact, params
from pipeline.ledger import measured
from pipeline.ledger.claims import CLAIMS, read_claims
from pipeline.ledger.measured import add, read_measured
from pipeline.ledger.render import STATISTICS, render
from pipeline.ledger.verdict import judge, seeds_needed
from pipeline.recipe import recipes
from pipeline.results import RESULTS

Games = NDArray[np.float64]
MEAN = STATISTICS["mean"]


def seeds(mean: float, spread: float, count: int, seed: int) -> list[Games]:
    generator = np.random.default_rng(seed)
    return [
        mean + spread * generator.standard_normal() + generator.standard_normal(50)
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("mean", "spread", "gap", "word"),
    [
        (100.0, 5.0, 100.0, "reproduced"),
        (-100.0, 5.0, 100.0, "not reproduced"),  # the other way round
        (0.0, 5.0, 100.0, "not reproduced"),  # no difference, and surely not the paper's
        (20.0, 100.0, 60.0, "under-powered"),
    ],
)
def test_verdicts(mean: float, spread: float, gap: float, word: str) -> None:
    found = judge(
        seeds(mean, spread, 6, seed=1), seeds(0.0, spread, 6, seed=2), gap, MEAN, (10.0, 10.0)
    )
    assert found.word == word
    assert found.low < found.difference < found.high
    assert (found.seeds_needed is not None) == (word == "under-powered")


def test_one_seed_a_side_shows_nothing() -> None:
    found = judge(seeds(1e6, 0, 1, 0), seeds(0, 0, 9, 0), 1.0, MEAN, (1.0, 1.0))
    assert found.word == "under-powered" and found.seeds_needed is not None


def test_the_seeds_needed_find_the_gap_in_four_of_five_cases() -> None:
    gap, deviations = 100.0, (120.0, 60.0)
    count = seeds_needed(gap, deviations)
    generator = np.random.default_rng(0)
    size = (20_000, count)
    ours = generator.normal(gap, deviations[0], size).mean(1)
    theirs = generator.normal(0, deviations[1], size).mean(1)
    error = np.hypot(*deviations) / np.sqrt(count)
    assert 0.78 < ((ours - theirs) / error > 1.96).mean() < 0.88


def test_every_claim_names_a_policy_of_its_recipe() -> None:
    claims = read_claims()
    assert len(claims.tables) == 8
    for table in claims.tables:
        assert set(table.scores) <= set(params.load(recipes()[table.recipe]).tables["policies"])
    assert all(bool(line.ours) != bool(line.why) for line in claims.lines)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("frostbite-der-p:", "frostbite-derp:", "has no policies frostbite-derp"),
        ("- [frostbite-spirl, frostbite-der]", "- [frostbite-der, frostbite-spirl]", "above"),
        ("- [frostbite-spirl, frostbite-der]", "- [frostbite-spirl]", "malformed"),
        ("protocol: mean ", "protocol: best ", "protocol 'best'"),
    ],
)
def test_a_slip_in_the_claims_is_found(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "claims.yaml"
    text = CLAIMS.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FoveaError, match=rf"claims\.yaml.*{told}"):
        read_claims(path)


def test_results_are_rendered_from_what_is_committed() -> None:
    assert RESULTS.read_text("utf-8") == render(read_claims(), read_measured())


def one(policy: str, seed: int, returns: list[list[float]], **more: object) -> dict[str, object]:
    machine = {"processor": "a processor", "cores": 2, "gpu": None}
    return {
        "policy": policy,
        "seed": seed,
        "failed": None,
        "note": "",
        "entry": {"env": "atari/Frostbite", "steps": 100_000},
        "encoder": {},
        "run": {"commit": "abc", "machine": machine, "wall_seconds": 3600.0, "resumed": 0},
        "checkpoints": [
            {"step": 10_000 * (i + 1), "returns": games} for i, games in enumerate(returns)
        ],
        "random": {"returns": [1.0, 2.0]},
    } | more


def keep(folder: Path, *files: dict[str, object]) -> Path:
    for file in files:
        name = measured.file_name(str(file["policy"]), int(str(file["seed"])))
        (folder / name).write_text(json.dumps(file))
    return folder


def test_scores_go_by_the_protocol_and_failed_seeds_stay_in(tmp_path: Path) -> None:
    best = [[0.0, 0.0, 99.0], [5.0, 5.0, 5.0], [1.0, 1.0, 1.0]]
    failed = one("frostbite-spirl", 1, [], failed="the loss is not finite")
    keep(tmp_path, one("frostbite-spirl", 0, best), failed)
    first, second = read_measured(tmp_path)["frostbite-spirl"]
    assert first.games("mean").tolist() == [1.0, 1.0, 1.0]
    assert first.games("median").tolist() == [5.0, 5.0, 5.0]
    assert second.games("mean").tolist() == [1.0, 2.0]


def test_a_page_with_runs_shows_them(tmp_path: Path) -> None:
    ours = [one("frostbite-spirl", s, [[700.0 + s, 710.0]]) for s in range(3)]
    theirs = [one("frostbite-der", s, [[300.0 + s, 310.0]]) for s in range(3)]
    page = render(read_claims(), read_measured(keep(tmp_path, *ours, *theirs)))
    assert "6 seeds of 2 of the" in page
    assert "| Frostbite | SPIRL above DE-Rainbow | +328.1 | +400.0 |" in page
    assert "**reproduced**" in page and "`abc`" in page
    assert "| Frostbite | SPIRL above DE-Rainbow-P | +185.8 |  |  | not run: DE-Rainbow-P |" in page


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"policy": ', "malformed"),
        (json.dumps(one("frostbite-spirl", 0, [[]])), "malformed"),
        (json.dumps(one("frostbite-spirl", 0, [[float("nan")]])), "malformed"),
        (json.dumps(one("frostbite-spirl", 1, [[1.0]])), "rename"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "frostbite-spirl-seed-0.json").write_text(text)
    with pytest.raises(FoveaError, match=rf"frostbite-spirl-seed-0\.json.*{told}"):
        read_measured(tmp_path)


def test_seeds_of_different_trainings_don_t_mix(tmp_path: Path) -> None:
    other = one("frostbite-spirl", 1, [[1.0]], entry={"env": "atari/Frostbite", "steps": 90_000})
    keep(tmp_path, one("frostbite-spirl", 0, [[1.0]]), other)
    with pytest.raises(FoveaError, match="not trained alike"):
        read_measured(tmp_path)


def artifacts(root: Path, **changed: object) -> Path:
    """A finished evaluation of frostbite-spirl, as its stages leave it."""
    checked = params.load(recipes()["spirl"])
    entry = checked.entry("policies", "frostbite-spirl").resolved() | changed
    evaluation = {
        "games": 1,
        "epsilon": 0.001,
        "seeds": [{"seed": 0, "failed": None, "checkpoints": [{"step": 9, "returns": [4.0]}]}],
        "random": {"returns": [1.0]},
    }
    trained = {k: v for k, v in entry.items() if k not in ("games", "epsilon")}
    for label, made in (
        ("encoders/frostbite-mae", {"model": "mae"}),
        ("policies/frostbite-spirl", trained),
        ("evaluations/frostbite-spirl", {}),
    ):
        folder = root / label
        folder.mkdir(parents=True)
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
        artifact.seal(folder, label, entry=made, inputs={}, metrics={})
    run = {"commit": "abc", "wall_seconds": 1.0, "resumed": 0, "machine": {}}
    (root / ".runs").mkdir()
    (root / ".runs/train-frostbite-spirl.json").write_text(json.dumps(run))
    return root


def test_adding_keeps_one_file_a_seed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    root = artifacts(tmp_path / "artifacts", seeds=1)  # fewer seeds are no other training
    (path,) = add("frostbite-spirl", "a note", root=root, folder=tmp_path / "kept")
    (seed,) = read_measured(tmp_path / "kept")["frostbite-spirl"]
    assert path.name == "frostbite-spirl-seed-0.json"
    assert seed.games("mean").tolist() == [4.0] and seed.note == "a note"


@pytest.mark.parametrize("change", [{"steps": 3_000}, {"features": {"max_ratio": 0.5}}])
def test_runs_at_other_settings_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    root = artifacts(tmp_path / "artifacts", **change)
    with pytest.raises(FoveaError, match=rf"{next(iter(change))} not as in recipe"):
        add("frostbite-spirl", root=root, folder=tmp_path)
    assert not list(tmp_path.glob("*.json"))
