"""Linear probes: linear information is found, noise is not, and no episode is on both sides."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pretrain.metrics import probe
from pretrain.metrics.probe import PENALTIES, Probe, episodes_of, few, score_mean, split

FRAMES, EPISODES = 400, 20
EPISODE = np.repeat(np.arange(EPISODES), FRAMES // EPISODES)
Doubles = NDArray[np.float64]


def scene(seed: int = 0) -> tuple[np.random.Generator, Doubles]:
    """A generator, and positions (n, 2) that drift within an episode and jump between episodes."""
    generator = np.random.default_rng(seed)
    starts = generator.uniform(0, 64, (EPISODES, 2))[EPISODE]
    return generator, starts + np.cumsum(generator.normal(0, 0.3, (FRAMES, 2)), 0)


def test_linear_information_is_found() -> None:
    """Mixed with other features, and with a mean other than zero."""
    generator, place = scene()
    features = np.hstack([place, generator.normal(0, 30, (FRAMES, 10))]) + 100
    mixed = features @ generator.normal(size=(12, 12))
    (score,) = Probe(mixed).score({"tip": place}, split(EPISODE, 0)).values()
    assert score.r2 == pytest.approx(1, abs=1e-4) and score.error < 0.2


def test_noise_has_no_information() -> None:
    generator, place = scene()
    noise = generator.normal(size=(FRAMES, 30))
    parts = split(EPISODE, 0)
    (score,), (mean,) = (
        scores.values() for scores in (Probe(noise).score({"tip": place}, parts),
                                     score_mean({"tip": place}, parts))
    )  # fmt: skip
    assert score.r2 is not None and mean.r2 is not None
    assert score.r2 < 0.02 and mean.r2 <= 0
    assert score.error == pytest.approx(mean.error, rel=0.1)


def test_the_episode_s_identity_does_not_help() -> None:
    """Features that identify the episode, and a position that depends on it alone: with frames of
    an episode on both sides, R² would be 1.
    """
    generator, _ = scene()
    names = np.eye(EPISODES)[EPISODE]
    place = generator.uniform(0, 64, (EPISODES, 2))[EPISODE]
    for seed in range(5):
        (score,) = Probe(names).score({"goal": place}, split(EPISODE, seed)).values()
        assert score.r2 is not None and score.r2 < 0.01
    by_frame = split(np.arange(FRAMES), 0)
    (leaked,) = Probe(names).score({"goal": place}, by_frame).values()
    assert leaked.r2 is not None and leaked.r2 > 0.99


def test_an_episode_is_on_one_side_and_all_are_used() -> None:
    shuffled = np.random.default_rng(0).permutation(EPISODE)
    for seed in range(10):
        parts = split(shuffled, seed)
        sides = [
            set(shuffled[part].tolist()) for part in (parts.train, parts.validation, parts.test)
        ]
        assert [len(side) for side in sides] == [13, 2, 5]
        assert set().union(*sides) == set(range(EPISODES))
    assert (split(shuffled, 1).test != split(shuffled, 2).test).any()
    assert (split(shuffled, 1).test == split(shuffled, 1).test).all()


def test_few_frames_are_spread_over_the_training_frames() -> None:
    parts = split(np.arange(400) // 10, 0)
    less = few(parts, 20)
    assert less.train.sum() == 20 and not (less.train & ~parts.train).any()
    gaps = np.diff(parts.train.cumsum()[less.train])
    assert gaps.max() - gaps.min() <= 1
    assert less.test is parts.test and less.validation is parts.validation
    assert (few(parts, 1000).train == parts.train).all()


def test_four_episodes_are_needed() -> None:
    parts = split(np.array([0, 1, 2, 3]), 0)
    assert [part.sum() for part in (parts.train, parts.validation, parts.test)] == [2, 1, 1]
    with pytest.raises(ValueError, match="episodes: 3"):
        split(np.array([0, 1, 2, 2]), 0)


@pytest.mark.parametrize("width", [5, 600])  # fewer and more than frames; more than one block
def test_the_map_is_ridge_regression_s(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy's least squares with a row for each penalised weight, with the penalty that is best on
    the validation frames.
    """
    monkeypatch.setattr(probe, "BLOCK", 128)
    generator, place = scene(1)
    features = generator.normal(2, 1, (FRAMES, width))
    features[:, :2] += place / 20
    parts = split(EPISODE, 3)
    (score,) = Probe(features).score({"tip": place}, parts).values()
    mean, origin = features[parts.train].mean(0), place[parts.train].mean(0)
    centred = features[parts.train] - mean
    scale = (centred**2).sum() / len(centred)

    def errors(penalty: float, rows: NDArray[np.bool_]) -> Doubles:
        ridge = np.sqrt(penalty * scale) * np.eye(width)
        targets = np.vstack([place[parts.train] - origin, np.zeros((width, 2))])
        weights = np.linalg.lstsq(np.vstack([centred, ridge]), targets)[0]
        return np.asarray((features[rows] - mean) @ weights + origin - place[rows])

    best = min(PENALTIES, key=lambda p: float((errors(p, parts.validation) ** 2).sum()))
    wrong, true = errors(best, parts.test), place[parts.test]
    assert score.penalty == best
    assert score.r2 == pytest.approx(1 - (wrong**2).sum() / ((true - true.mean(0)) ** 2).sum())
    assert score.error == pytest.approx(np.linalg.norm(wrong, axis=1).mean())


def test_positions_are_fitted_independently() -> None:
    generator, place = scene(2)
    features = np.hstack([place, generator.normal(size=(FRAMES, 4))])
    other, parts = generator.normal(size=(FRAMES, 3)), split(EPISODE, 0)
    alone = Probe(features).score({"tip": place}, parts)["tip"]
    assert Probe(features).score({"goal": other, "tip": place}, parts)["tip"] == alone


def test_a_constant_position_has_no_r2() -> None:
    generator, _ = scene()
    still = np.full((FRAMES, 2), 7.0)
    score = Probe(generator.normal(size=(FRAMES, 3))).score({"goal": still}, split(EPISODE, 0))
    assert score["goal"].r2 is None and score["goal"].error < 1e-9


def test_constant_features_predict_the_mean() -> None:
    _, place = scene()
    parts = split(EPISODE, 0)
    scores = Probe(np.ones((FRAMES, 3))).score({"tip": place}, parts)["tip"]
    assert scores.r2 == pytest.approx(score_mean({"tip": place}, parts)["tip"].r2)


@pytest.mark.parametrize("features", [np.ones(3), np.full((4, 2), np.nan)])
def test_features_with_nan_are_refused(features: Doubles) -> None:
    with pytest.raises(ValueError, match="features"):
        Probe(features)


def test_episodes_of_one_number_in_two_streams_are_two() -> None:
    stream, episode = np.array([0, 0, 0, 1, 1], np.int32), np.array([0, 0, 1, 0, 0], np.int32)
    assert episodes_of([stream, episode]).tolist() == [0, 0, 1, 2, 2]
