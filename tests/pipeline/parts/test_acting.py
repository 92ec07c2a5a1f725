"""Uniform attention of policies, through their own upsampling."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.parts import acting
from pipeline.parts.labelled import Labelled
from rl.policy import Policy
from tests.rl import fakes
from tests.rl.test_watch import Patches, frame_set


@pytest.fixture(autouse=True)
def _chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.envs.single", fakes.single_chain)


def labelled(count: int) -> Labelled:
    images = np.random.default_rng(0).integers(0, 256, (count, 25, 25, 3), np.uint8)
    frames = frame_set(images, [0, 2])
    indices = np.array([0, 2, count])
    return Labelled(frames, indices, np.zeros((3, 25, 25), np.uint8))


def test_a_policy_that_reads_some_patches_attends_to_these_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frame by frame, in batches."""
    monkeypatch.setattr(acting, "BATCH", 2)
    policy: Policy = fakes.policy(encoder=Patches())
    maps = acting.uniform_attention(policy, labelled(5))
    expected = np.zeros(25, np.float32)
    expected[[7, 3]] = 1  # its tokens
    expected = expected.reshape(5, 5).repeat(5, axis=0).repeat(5, axis=1)
    assert np.array_equal(maps, np.stack([expected] * 3))


def test_an_agent_without_probabilities_of_actions_has_no_occlusion() -> None:
    policy: Policy = fakes.policy(encoder=Patches())
    data = labelled(5)
    maps = {"source": np.random.default_rng(1).random((3, 25, 25), np.float32)}
    scores = acting.occlusion(policy, data, maps)
    assert scores == {}
