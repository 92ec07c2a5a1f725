"""Meta-World's scripted policies as a source of frames."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from datasets.errors import FoveaError
from datasets.files import sha256_file
from datasets.shards import read_frames
from datasets.sources.expert import Config, streams


@pytest.mark.parametrize("game", ["reach", "drawer-open"])
def test_experts_succeed_where_random_actions_do_not(game: str) -> None:
    (stream,) = streams(Config(streams=1), f"metaworld/{game}", 240)
    frames = list(stream.frames())
    assert any(frame.info["success"] for frame in frames)
    assert np.mean([frame.reward for frame in frames]) > 2
    assert not frames[0].info["success"]


def test_episodes_do_not_depend_on_the_view() -> None:
    (stream,), (turned,) = (
        streams(Config(streams=1), f"metaworld/reach{view}", 3) for view in ("", "?view=upright")
    )
    for frame, other in zip(stream.frames(), turned.frames(), strict=True):
        assert np.array_equal(frame.action, other.action)
        assert np.array_equal(frame.image[:, ::-1], other.image)


def test_noise_and_random_steps_disturb_the_actions() -> None:
    def actions(**words: float) -> np.ndarray:
        (stream,) = streams(Config(streams=1, **words), "metaworld/reach", 60)  # type: ignore[arg-type]
        return np.array([frame.action for frame in stream.frames()])

    clean, noisy, wild = actions(noise=0), actions(noise=0.1), actions(noise=0, random=1)
    assert np.abs(clean).max() <= 1 and np.abs(noisy).max() <= 1
    assert np.array_equal(clean, actions(noise=0)) and not np.array_equal(clean, noisy)
    assert np.abs(wild.mean(0)).max() < 0.4 and np.ptp(wild) > 1.9


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        for stream in streams(Config(streams=2, random=0.2), "metaworld/door-open", 90):
            pickle.loads(pickle.dumps(stream)).run(tmp_path / name, lambda _: None)
    files = sorted(path.name for path in (tmp_path / "one").glob("*.tar"))
    assert len(files) == 2
    for file in files:
        assert sha256_file(tmp_path / "one" / file) == sha256_file(tmp_path / "other" / file)
    frames = read_frames(tmp_path / "one")
    assert frames.images.shape == (90, 64, 64, 3)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(FoveaError, match="atari/Pong has no scripted policy"):
        streams(Config(), "atari/Pong", 10)
    with pytest.raises(FoveaError, match="did you mean drawer-open"):
        streams(Config(), "metaworld/drawer-opne", 10)
    with pytest.raises(ValueError, match="noise: -1"):
        Config(noise=-1)
    with pytest.raises(ValueError, match=r"random: 1\.5"):
        Config(random=1.5)
    with pytest.raises(ValueError, match="count: 0"):
        streams(Config(), "metaworld/reach", 0)
