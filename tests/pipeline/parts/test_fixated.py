"""Fixation metrics of an exam: frame by frame, against the other frames of the stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.parts.fixated import Fixated, Score, read_scores
from pretrain.metrics.fixations import SIZE, fixation_map, frame_scores, nss, resize, shuffled_auc
from pretrain.modules.maps import centre_prior

STREAMS = np.array([0, 0, 0, 4, 4, 7], np.int32)  # one frame is alone in its stream


@pytest.fixture
def points() -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.uniform(0, 400, (n, 2)) for n in (3, 1, 4, 2, 5, 3)]


def check(score: Score, mean: Any, defined: int, recordings: Any = None) -> None:
    assert score.mean == pytest.approx(mean, abs=1e-9) and score.defined == defined
    if recordings is not None:
        assert score.recordings == pytest.approx(recordings)


def test_scores_are_means_over_frames_that_have_one(points: list[Any]) -> None:
    """Shuffled AUC against the other frames of the stream, of which the last has none."""
    maps = np.random.default_rng(1).random((6, 7, 7), np.float32)
    maps[1] = 0  # undefined
    scores = Fixated(points, STREAMS).scores(maps)
    grids = [fixation_map(each * [0.4, 0.525], *SIZE) for each in points]
    large = resize(maps, *SIZE)
    own = [nss(large[i], grids[i]) for i in (0, 2, 3, 4, 5)]
    check(scores["nss"], np.mean(own), 5, [np.mean(own[:2]), np.mean(own[2:4]), own[4]])
    others = {0: grids[1] + grids[2], 2: grids[0] + grids[1], 3: grids[4], 4: grids[3]}
    own = [shuffled_auc(large[i], grids[i], other) for i, other in others.items()]
    check(scores["shuffled_auc"], np.mean(own), 4, [np.mean(own[:2]), np.mean(own[2:])])
    prior = centre_prior(*SIZE, 0.25).numpy()
    assert scores.keys() == frame_scores(large[0], grids[0], grids[0], prior).keys()
    own = [frame_scores(large[i], grids[i], grids[i], prior)["kl"] for i in (0, 2, 3, 4, 5)]
    check(scores["kl"], np.mean(own), 5)


def test_a_metric_that_no_frame_has_is_none_and_the_prior_gains_nothing(points: list[Any]) -> None:
    fixated = Fixated(points, STREAMS)
    scores = fixated.scores(np.zeros((6, 7, 7), np.float32))
    assert all(score == (None, 0, []) for score in scores.values())
    prior = np.broadcast_to(centre_prior(*SIZE, 0.25).numpy(), (6, *SIZE))
    check(fixated.scores(prior)["information_gain"], 0, 6)


def test_points_at_the_canvass_borders_count() -> None:
    corners = np.array([[0.0, 0.0], [400.0, 400.0]])
    fixated = Fixated([corners], np.zeros(1, np.int32))
    maps = np.zeros((1, *SIZE), np.float32)
    maps[0, 0, 0] = maps[0, -1, -1] = 1
    assert fixated.scores(maps)["auc_judd"] == (1, 1, [1])


@pytest.mark.parametrize(
    "value",
    [
        [None, 3], [1.0, 0], [1.0, 11], [1.0, -1], ["1", 3], [True, 3], [float("nan"), 3], [1.0],
        [1.0, 3, 1.0], [1.0, 3, ["1"]], [1.0, 3, [1.0] * 4], [1.0, 3, [1.0], 1],
    ],
)  # fmt: skip
def test_scores_that_cannot_be_are_refused(value: list[Any]) -> None:
    value_of = {"nss": [1.5, 10, [1.0, 2.0]], "kl": [None, 0], "cc": [1, 2]}
    assert read_scores(value_of, 10) == {
        "nss": (1.5, 10, (1.0, 2.0)), "kl": (None, 0, ()), "cc": (1, 2, ()),
    }  # fmt: skip
    with pytest.raises((ValueError, TypeError)):
        read_scores({"nss": value}, 10)
