"""The tables of benchmarks: targets that are met, and targets that are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import page, results
from bench.__main__ import table
from bench.error_map import TARGETS
from bench.exact import wrong_games
from bench.half import differs
from bench.page import WARM
from pipeline.results.record import read_records


@pytest.mark.parametrize(("ours", "ratio", "met"), [(99.9, 9.0, "no"), (100.0, 0.5, "yes")])
def test_a_rate_is_compared_with_its_target(ours: float, ratio: float, met: str) -> None:
    figures = {
        f"{what}_{name}": value
        for what in ("tokens", "two_seeds", "pixels")
        for name, value in (
            ("updates_per_second", ours), ("plain_per_second", 10.0), ("ratio", ratio),
        )
    }  # fmt: skip
    _, *lines = table({"rainbow": figures})
    assert [line.split()[-2:] for line in lines[:2]] == [["100", met]] * 2
    assert lines[2].split()[-1] == f"{ratio:.3g}"  # without a target


@pytest.mark.parametrize(("ratio", "met"), [(1.99, "no"), (2.0, "yes")])
def test_a_ratio_is_compared_with_its_target(ratio: float, met: str) -> None:
    figures = {"patch_8_ours_ms": 1e3, "patch_8_plain_ms": 2e3, "patch_8_ratio": ratio}
    _, line = table({"mae": figures})
    assert line.split()[-1] == met and line.split()[-2] == "2x"


def test_the_cache_hits_are_named() -> None:
    names = ("plain_ms", "remembering_ms", "remembering_ratio")
    figures = {f"{game}_{name}": 20.0 for game in TARGETS for name in names}
    rates = {f"{game}_hit_rate": 0.985 for game in TARGETS}
    _, *lines = table({WARM: figures | rates | {"remembered_frames": 9600}})
    assert len(lines) == len(TARGETS)
    assert all("98% cache hits" in line for line in lines)


def test_the_committed_page_is_up_to_date() -> None:
    assert page.BENCH.read_text("utf-8") == page.page()


def test_the_run_of_two_seeds_was_not_interrupted() -> None:
    """Neither resumed nor failed."""
    first = read_records()["policies/frostbite-spirl"][0]
    assert (first.entry["seeds"], first.scores["failed"]) == (2, None)
    assert first.runs["train-frostbite-spirl"]["resumed"] == 0


def test_the_separate_measurements_met_their_targets() -> None:
    """And worse ones do not."""
    rows = [page.error_maps(), *page.bfloat16(), *page.runs(read_records())]
    assert [row[-1] for row in rows] == ["yes"] * 6
    measurements = json.loads(Path("bench/measured/half.json").read_text())
    for figures in (measurements["half"]["figures"], measurements["whole"]["figures"]):
        worse = {"overlap_with_float32": figures["bfloat16"]["overlap_with_float32"] - 0.1}
        assert differs(figures | {"bfloat16": figures["bfloat16"] | worse})
        worse = {"loss": figures["bfloat16"]["loss"] * 1.006}
        assert differs(figures | {"bfloat16": figures["bfloat16"] | worse})
        assert not differs(figures)
    assert not differs(measurements["multimae"]["figures"])


def test_the_error_maps_are_the_definitions() -> None:
    """All of 256 real frames a game, as measured by `python -m bench.exact`; and other maps are
    not.
    """
    games = json.loads(Path("bench/measured/error-maps.json").read_text())["games"]
    assert games.keys() == TARGETS.keys() and wrong_games(games) == []
    assert all(one["frames"] == 256 for one in games.values())
    for key, value in (("largest_difference", 1.1e-5), ("frames_with_another_selection", 1)):
        assert wrong_games(games | {"Seaquest": games["Seaquest"] | {key: value}}) == ["Seaquest"]
    nothing = games["Seaquest"] | {"largest_difference": float("nan")}
    assert wrong_games({"Seaquest": nothing}) == ["Seaquest"]


def test_figures_of_one_run_do_not_change_those_of_others(tmp_path: Path) -> None:
    """And have the machine, versions and commit of their measurement."""
    path = tmp_path / "artifacts" / "bench.json"
    path.parent.mkdir()
    path.write_text('{"machine": {}')  # cut short
    results.write(path, {"mae": {"ratio": 1.0}, "sac": {"ratio": 2.0}})
    results.write(path, {"mae": {"ratio": 3.0}})
    content = json.loads(path.read_text())
    assert {name: one["figures"] for name, one in content.items()} == {
        "mae": {"ratio": 3.0},
        "sac": {"ratio": 2.0},
    }
    assert all(one["machine"]["cores"] and one["versions"]["torch"] for one in content.values())
    assert all("commit" in one for one in content.values())
