"""Scores of cells and verdicts on comparisons, from records with a known answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datasets.errors import FoveaError
from pipeline.config.tables import Params
from pipeline.results.claims import Cell, Claims, Sources, Table
from pipeline.results.comparisons import Records, compare, count, ours, paired_verdict, samples
from pipeline.results.record import Record
from tests.pipeline.results.some_records import (
    by_label,
    exam_of,
    fifty,
    probe_of,
    saliency_of,
    seed_of,
)

SPIRL = Cell("SPIRL", "Frostbite", (("frostbite-spirl",),), 669.5, 731.7)
DER = Cell("DE-Rainbow", "Frostbite", (("frostbite-der",),), 341.4, 277.8)
MAE = tuple(f"reach-mae-s{seed}" for seed in range(3))


def scores(cell: Cell, protocol: str, records: Records) -> list[float]:
    statistic = np.median if protocol == "median" else np.mean
    return [float(statistic(one)) for one in samples(cell, protocol, records)]


def test_scores_follow_the_protocol_and_failed_seeds_count() -> None:
    best = seed_of("frostbite-spirl", 0, [[0.0, 0.0, 99.0], [5.0, 5.0, 5.0], [1.0, 1.0, 1.0]])
    early = seed_of("frostbite-spirl", 1, [[7.0]], "the loss is not finite")
    early.scores["checkpoints"][0]["step"] = 20_000
    lost = seed_of("frostbite-spirl", 2, [], "the loss is not finite")
    records = by_label(best, early, lost)
    assert scores(SPIRL, "mean", records) == [1.0, 7.0, 1.5]
    assert scores(SPIRL, "median", records) == [5.0, 7.0, 1.5]
    measured = ours(SPIRL, "mean", records)
    assert measured is not None
    assert measured[0].mean == pytest.approx(9.5 / 3) and measured[1] == 3


def test_success_is_that_of_the_last_checkpoint() -> None:
    one = seed_of("frostbite-spirl", 0, [[9.0], [1.0]])
    lost = seed_of("frostbite-spirl", 1, [], "the loss is not finite")
    for record in (one, lost):
        record.scores["random"]["successes"] = fifty([0.0, 0.0, 0.0, 0.0, 1.0])
    for point, rates in zip(one.scores["checkpoints"], ([0.0, 1.0], [1.0]), strict=True):
        point["successes"] = fifty(rates)
    assert scores(SPIRL, "success", by_label(one, lost)) == [0.5, 0.2]
    with pytest.raises(FoveaError, match=r"seed-2\.json: has no successes"):
        samples(SPIRL, "success", by_label(seed_of("frostbite-spirl", 2, [[1.0]])))


def test_a_score_lies_in_its_interval_under_either_protocol() -> None:
    """One seed of ten scores 90: the median of all episodes, resampled, is 0; the score is 9."""
    records = by_label(*(seed_of("frostbite-spirl", i, [[90.0 * (i == 0)]]) for i in range(10)))
    for protocol in ("mean", "median"):
        measured = ours(SPIRL, protocol, records)
        assert measured is not None and measured[0].mean == 9
        low, high = measured[0].mean_interval
        assert low <= 9 <= high


def probes(recipe: Params) -> dict[str, list[Record]]:
    return by_label(*(probe_of(recipe, name, pooled=0.5 + i / 50, tokens=0.8)
                      for i, name in enumerate(MAE)),
                    *(probe_of(recipe, f"door-mae-s{i}", pooled=0.1) for i in (0, 2)))  # fmt: skip


def test_a_probe_is_the_mean_over_points_that_move(small: Params) -> None:
    cell = Cell("MAE", "Reach", (MAE,))
    records = probes(small)
    places = records["encoders/reach-mae-s0"][0].scores["readings"]["pooled"]
    places["image tip"]["r2"] = [0.3, 0.3, 0.3]
    places["image goal"]["r2"] = [None, None, None]
    first, second, _ = samples(cell, "probe", records)
    assert first == pytest.approx([0.395, 0.4, 0.405]) and second == pytest.approx(
        [0.51, 0.52, 0.53]
    )
    assert samples(replace(cell, points=("tip",)), "probe", records)[0] == pytest.approx(0.3)
    assert samples(replace(cell, reading="global token"), "probe", records) == []


def test_tasks_are_pooled_seed_by_seed(small: Params) -> None:
    """Seeds that one of the tasks lacks are left out."""
    pooled = Cell("MAE", "both", (MAE, ("door-mae-s0", "none", "door-mae-s2")))
    assert scores(pooled, "probe", probes(small)) == pytest.approx([0.3, 0.32])


def test_seeds_probed_on_different_frames_are_refused(small: Params) -> None:
    records = probes(small)
    records["encoders/reach-mae-s1"][0].scores["rows"] = 40
    with pytest.raises(FoveaError, match="MAE on Reach: its seeds were probed on different frames"):
        samples(Cell("MAE", "Reach", (MAE,)), "probe", records)


def test_an_exam_s_score_is_a_number_a_seed(small: Params) -> None:
    """Of the source, or of a control beside it; of the exam's own annotations and keypoints."""
    names = tuple(f"encoders/{name} annotations/objects 7" for name in MAE)
    recalls = (0.5, 0.52, 0.54)
    pairs = zip(MAE, recalls, strict=True)
    exams = [exam_of(small, name, source=recall, random=0.3) for name, recall in pairs]
    others = [exam_of(small, MAE[0], k=10, source=0.9), saliency_of(small, "near", 0.1)]
    records = by_label(*others, *exams)
    ours_, random = (
        Cell("MAE", "Reach", (names,), reading="source"),
        Cell("random", "Reach", (names,), reading="random"),
    )
    assert scores(ours_, "recall", records) == list(recalls)
    assert scores(ours_, "precision", records) == [0.5] * 3
    assert scores(random, "recall", records) == [0.3] * 3
    assert samples(replace(ours_, reading="motion"), "recall", records) == []
    measured = ours(ours_, "recall", records)
    assert measured is not None and measured[1] == 3
    low, high = measured[0].mean_interval
    assert low < 0.5 < 0.54 < high  # Student's, of three
    (one,) = compare(one_table("recall", 0, (ours_, random)), records)
    assert (one.word, one.seeds) == ("holds", (3, 3)) and one.verdict
    assert one.verdict.difference == pytest.approx(0.22)
    assert samples(ours_, "nss", records) == []  # an early exam
    for one_seed, nss in zip(exams, (1.0, 2.0, 3.0), strict=True):
        rows = {"source": {"nss": [nss, 20, [nss]]}, "random": {"nss": [None, 0, []]}}
        one_seed.scores["looked"] = rows
    assert scores(ours_, "nss", records) == [1.0, 2.0, 3.0]
    assert samples(random, "nss", records) == samples(ours_, "occlusion_kl", records) == []
    ten = Cell("MAE", "Reach", ((f"encoders/{MAE[0]} annotations/objects 10",),), reading="source")
    assert scores(ten, "recall", records) == [0.9]


def one_table(protocol: str, trials: int, *pairs: tuple[Cell, Cell]) -> Claims:
    cells = tuple(dict.fromkeys(cell for pair in pairs for cell in pair))
    table = Table("T", "small", protocol, trials, "hours", "", cells, pairs)
    return Claims("A", "paper", (table,), (), (), ())


def test_verdicts_on_our_own_questions(small: Params) -> None:
    mae = Cell("MAE", "Reach", (MAE,))
    tokens, other = replace(mae, reading="tokens"), Cell("other", "Reach", (("none",),))
    claims = one_table("probe", 0, (tokens, mae), (mae, tokens), (mae, mae), (mae, other))
    compared = compare(claims, probes(small))
    assert [one.word for one in compared] == ["holds", "does not hold", "under-powered", "not run"]
    assert count(compared) == {"holds": 1, "does not hold": 1, "under-powered": 1, "not run": 1}
    assert compared[3].missing == ("other",)


def test_a_comparison_has_its_seeds_and_failed_seeds() -> None:
    above = [seed_of("frostbite-spirl", s, [[700.0 + s, 710.0]]) for s in range(3)]
    lost = [seed_of("frostbite-der", s, [], "the loss is not finite") for s in range(3)]
    (one,) = compare(one_table("mean", 5, (SPIRL, DER)), by_label(*above, *lost))
    assert (one.word, one.seeds, one.failed, one.seeds_needed) == ("reproduced", (3, 3), 3, None)
    alike = [seed_of("frostbite-der", s, [[710.0 - s, 700.0]]) for s in range(3)]
    (one,) = compare(one_table("mean", 5, (SPIRL, DER)), by_label(*above, *alike))
    assert one.word == "not reproduced" and one.gap and one.seeds_needed == one.gap.seeds_needed


def test_pairs_are_of_scores_on_the_same_annotations(small: Params) -> None:
    labels = ("predictors/near",), ("predictors/far",)
    pair = Sources("30 less 5", "", *labels, size=-0.01)
    near, far = saliency_of(small, "near", 0.01), saliency_of(small, "far", 0.03)
    judged = paired_verdict(pair, by_label(near, far))
    assert judged is not None and judged[0].word == "under-powered"
    assert judged[1] == pytest.approx([-0.02])
    assert paired_verdict(pair, by_label(near)) is None
    assert paired_verdict(pair, by_label(near, replace(far, on="annotations/reach"))) is None
    assert paired_verdict(replace(pair, score="f_max"), by_label(near, far)) is None
