"""Which episodes an evaluation plays, and which it has from earlier runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.evaluate import _marks, _result_path, hard_ratio
from rl.play import EpisodeFrame


def test_episodes_belong_to_the_weights_that_played_them() -> None:
    """Whatever the file's name: a retrained seed has the same name as before."""
    digests = {"seed-0/a.safetensors": "1" * 64, "seed-1/a.safetensors": "2" * 64}

    def episodes_of(files: dict[str, str]) -> dict[str, Path]:
        policy = SimpleNamespace(folder=Path("policies/x"), files=files)
        stage: Any = SimpleNamespace(folder=Path("work"), inputs={"policy": policy})
        return {name: _result_path(stage, policy.folder / name) for name in files}

    before = episodes_of(digests)
    assert len(set(before.values())) == 2 and episodes_of(digests) == before
    after = episodes_of(digests | {"seed-1/a.safetensors": "3" * 64})
    assert after["seed-0/a.safetensors"] == before["seed-0/a.safetensors"]
    assert after["seed-1/a.safetensors"] not in before.values()


def test_the_video_says_what_it_shows() -> None:
    image, saliency = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.float32)
    frames = [
        EpisodeFrame(image, 0.0, 0, selected=np.array([1])),
        EpisodeFrame(image, 0.0, 0, saliency=saliency, attends=True),
        EpisodeFrame(image, 0.0, 0, saliency=saliency),
        EpisodeFrame(image, 0.0, 0),
    ]
    assert [_marks(frame) for frame in frames] == ["patches", "attention", "saliency", None]


def test_the_ratio_of_hard_attention_is_of_the_last_checkpoints_alone() -> None:
    def seed(last: list[float], hard: list[float]) -> dict[str, Any]:
        points = [{"returns": [900.0]}, {"returns": last}]
        return {"checkpoints": points, "hard": {"returns": hard}}

    seeds = [seed([10.0, 20.0], [9.0, 18.0]), seed([40.0, 50.0], [45.0, 54.0])]
    ratio = hard_ratio([*seeds, {"checkpoints": []}])  # a seed that failed before its first one
    assert ratio["hard_ratio"] == pytest.approx((13.5 + 49.5) / (15 + 45))
    assert ratio["hard_ratio_low"] < ratio["hard_ratio"] < ratio["hard_ratio_high"]
    assert hard_ratio([{"checkpoints": []}]) == hard_ratio([seed([0.0], [1.0])]) == {}
