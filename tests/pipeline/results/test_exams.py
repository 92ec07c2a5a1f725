"""The matrix of sources and truths, from records at the settings of a recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from scipy import stats

from pipeline.config.tables import Params
from pipeline.results.exams import Answer, matrix, of_records
from pipeline.results.pages import MATRIX, pages
from pipeline.results.record import Record
from tests.pipeline.results.some_records import by_label, exam_of, saliency_of

ROWS = {"source": 1.0, "shuffled": 0.5, "centre": 0.25}


def looked(record: Record, *, scale: float = 1.0, defined: int = 20, **more: Any) -> Record:
    """With fixation metrics, in three recordings."""
    rows = {
        row: {"nss": [scale * nss, defined, [scale * nss + d for d in (-0.1, 0.0, 0.1)]]} | more
        for row, nss in ROWS.items()
    }
    judged = record.scores["judged"] | {f"{row}_mae": 0.1 for row in ("shuffled", "centre")}
    return replace(record, scores=record.scores | {"looked": rows, "judged": judged})


def shown(*records: Record) -> dict[str, list[list[str]]]:
    return {row.name: cells for row, cells in matrix(of_records(by_label(*records)))[1]}


@pytest.fixture
def seeds(small: Params) -> list[Record]:
    return [
        looked(exam_of(small, f"reach-mae-s{seed}", source=0.5, shuffled=0.25), scale=scale)
        for seed, scale in enumerate((1.0, 2.0, 4.0))
    ]


def test_seeds_of_a_method_are_one_row_with_student_s_interval(seeds: list[Record]) -> None:
    mean = 7 / 3
    low, high = stats.t.interval(0.95, 2, loc=mean, scale=stats.sem([1.0, 2.0, 4.0]))
    table = shown(*seeds)
    assert table["mae"] == [
        [f"NSS 2.33 [\N{MINUS SIGN}{-low:.3g}, {high:.3g}]; shuffled 1.17",
         "recall 0.5 [0.5, 0.5]; shuffled 0.25", "3 seeds"]
    ]  # fmt: skip
    assert (
        table["mae"]
        != shown(*seeds[:2])["mae"]
        == [
            ["NSS 1.5 (1 to 2); shuffled 0.75", "recall 0.5 (0.5 to 0.5); shuffled 0.25", "2 seeds"]
        ]
    )
    assert list(table) == ["mae", "all-zero map", "centre prior"]
    assert table["centre prior"][0][0].startswith("NSS 0.25 [")  # of one seed: they are equal


def test_the_interval_of_a_single_source_is_over_recordings(seeds: list[Record]) -> None:
    low, high = stats.t.interval(0.95, 2, loc=1.0, scale=stats.sem([0.9, 1.0, 1.1]))
    (cell,) = shown(seeds[0])["mae"]
    assert cell[0] == f"NSS 1 [{low:.3g}, {high:.3g}]; shuffled 0.5" and len(cell) == 2


def test_coverage_is_shown_where_a_score_lacks_frames(small: Params) -> None:
    one = looked(saliency_of(small, "near", 0.1), defined=15, shuffled_auc=[None, 0, []])
    assert shown(one)["centre"][0][0].startswith("NSS 1 (75 %) [")
    assert not any("sAUC" in line for line in shown(one)["centre"][0])


def test_methods_are_apart_by_the_settings_that_differ_and_by_data(small: Params) -> None:
    """Not by those that an older record lacks."""
    near, far = (saliency_of(small, name, 0.1, f_max=0.5) for name in ("near", "far"))
    assert list(shown(near, far))[:2] == ["centre, sigma 0.25", "centre, sigma 0.5"]
    del far.made_from["predictors/far"]["entry"]["sigma"]
    assert shown(near, far)["centre"][0] == ["F 0.5 (0.5 to 0.5)", "2 seeds"]
    far.made_from["annotations/reach"]["entry"]["count"] = 9
    assert list(shown(near, far))[:2] == ["centre, on 5 annotations", "centre, on 9 annotations"]


def test_a_student_is_named_by_the_maps_and_a_foreign_game(small: Params) -> None:
    entries: dict[str, dict[str, Any]] = {
        "annotations/x": {"annotator": "gaze", "frames": "x"},
        "frames/x": {"env": "atari/Pong"},
        "frames/y": {"env": "atari/Seaquest"},
        "saliency/x": {"by": "encoders/e"},
        "encoders/e": {"model": "mae", "data": "frames/y"},
        "predictors/s": {"model": "student", "data": "saliency/x"},
        "predictors/t": {"model": "student", "data": "frames/x"},
        "policies/p": {"agent": "ppo", "encoder": "e", "net": {"name": "fls", "variant": "daqn"}},
        "policies/q": {"agent": "ppo", "encoder": "e", "net": {"name": "fls", "variant": "dense"}},
    }
    scores = {"frames": 1, "judged": {"mae": 0.1}}
    names = ("encoders/e", "predictors/s", "predictors/t", "policies/p", "policies/q")
    answers = [Answer(name, "annotations/x", entries, scores) for name in names]
    head, rows = matrix(answers)
    assert head == ["gaze: x"]
    assert [row.name for row, _ in rows] == [
        "mae", "student, on maps of mae", "student", "fls of ppo, variant daqn",
        "fls of ppo, variant dense",
    ]  # fmt: skip
    assert answers[0].settings["on"] == "atari/Seaquest"
    head, rows = matrix([Answer("encoders/gone", "annotations/gone", entries, scores)])
    assert (head, rows[0][0].name) == (["unknown: gone"], "encoders/gone")
    entries["annotations/x"]["annotator"] = "mine"
    assert matrix(answers)[0] == ["mine: x"]


def test_occlusion_is_beside_its_source_and_not_in_a_control_s_row(seeds: list[Record]) -> None:
    """It is a change of that source's policy, whatever map it is by."""
    for row, kl in (("source", 0.5), ("shuffled", 0.25), ("centre", 0.125)):
        seeds[0].scores["looked"][row] |= {"occlusion_kl": [kl, 20, []]}
    table = shown(seeds[0])
    assert table["mae"][0][-1] == "occlusion KL 0.5; shuffled 0.25; centre prior 0.125"
    assert not any("occlusion" in line for line in table["centre prior"][0])


def test_results_have_the_matrix(seeds: list[Record], small: Params) -> None:
    """Clicks before points; no text of a record is markup."""
    text = pages([], by_label(*seeds, saliency_of(small, "near", 0.1, f_max=0.5)))[MATRIX]
    head = (
        "| source or control | simulated clicks: further | projected points: objects, 7 keypoints |"
    )
    assert head in text and "| centre | F 0.5 |  |" in text
    assert "<br>3 seeds |" in text
