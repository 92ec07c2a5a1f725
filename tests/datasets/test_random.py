"""The random source: real frames, the same bytes from any process, and after any kill."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from datasets import streams as parts
from datasets.errors import FoveaError
from datasets.files import sha256_file
from datasets.shards import read_frames
from datasets.sources.random import Config, streams
from datasets.streams import Stream


def nothing(count: int) -> None:
    """No progress."""


def digests(folder: Path) -> dict[str, str]:
    """Name and digest of every shard."""
    return {path.name: sha256_file(path) for path in sorted(folder.glob("*.tar"))}


def run_all(folder: Path, shares: list[Stream]) -> dict[str, str]:
    """Every stream, one after another in this process."""
    folder.mkdir(exist_ok=True)
    for stream in shares:
        stream.run(folder, nothing)
    return digests(folder)


def test_shares_are_even_and_streams_differ(tmp_path: Path) -> None:
    """All frames exist, every stream has other actions, and episodes contain lost lives."""
    shares = streams(Config(seed=3, streams=3), "atari/Breakout", 500)
    assert [share.count for share in shares] == [167, 167, 166]
    run_all(tmp_path, shares)
    frames = read_frames(tmp_path)
    assert len(frames) == 500 and frames.images.shape == (500, 96, 96, 3)
    assert np.bincount(frames.stream).tolist() == [167, 167, 166]
    assert set(frames.action) == set(range(4))
    first, second = (frames.action[frames.stream == i][:100] for i in (0, 1))
    assert (first != second).any()
    for stream in range(3):
        mine = frames.stream == stream
        ends, lives = frames.terminated[mine], frames.info["lives"][mine]
        starts = np.r_[True, ends[:-1]]
        assert (frames.step[mine][starts] == 0).all()
        assert frames.episode[mine][-1] == ends[:-1].sum()
        assert (lives[starts] == 5).all() and lives.min() >= 1
    assert len(set(frames.info["lives"].tolist())) > 2 and not frames.truncated.any()


def test_info_belongs_to_its_image(tmp_path: Path) -> None:
    """RAM and image are of the same moment: Breakout's paddle is at the place in RAM cell 72."""
    run_all(tmp_path, streams(Config(streams=1), "atari/Breakout", 120))
    frames = read_frames(tmp_path)
    paddle = frames.info["ram"][:, 72].astype(int)
    row = frames.images[:, 87, 5:91, 0] > 100
    column = np.array([line.nonzero()[0].mean() for line in row])
    assert np.corrcoef(paddle, column)[0, 1] > 0.99


def test_first_lives_only(tmp_path: Path) -> None:
    """An episode ends at its first lost life; until then it equals the whole game."""
    sets = {}
    for lives in ("all", "first"):
        shares = streams(Config(streams=2, lives=lives), "atari/Breakout", 400)
        run_all(tmp_path / lives, shares)
        sets[lives] = read_frames(tmp_path / lives)
    first, whole = sets["first"], sets["all"]
    assert (first.info["lives"] == 5).all() and not first.terminated.any()
    assert first.truncated.sum() >= 4
    for stream in (0, 1):
        cut = int(first.truncated[first.stream == stream].argmax()) + 1
        assert (whole.info["lives"][whole.stream == stream][cut] == 4).all()
        for frames in (first, whole):
            assert (frames.episode[frames.stream == stream][:cut] == 0).all()
        same = [frames.images[frames.stream == stream][:cut] for frames in (first, whole)]
        assert np.array_equal(*same)


def test_first_lives_are_refused_where_there_are_none() -> None:
    with pytest.raises(ValueError, match="lives: 'second', must be all or first"):
        Config(**{"lives": "second"})  # type: ignore[arg-type]
    with pytest.raises(FoveaError, match="lives: first, but metaworld/reach has no lives"):
        streams(Config(lives="first"), "metaworld/reach", 10)


def test_few_frames_need_few_streams() -> None:
    """No empty streams; impossible counts, seeds and unknown games are refused."""
    assert [share.index for share in streams(Config(streams=8), "atari/Pong", 3)] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"^count: 0"):
        streams(Config(), "atari/Pong", 0)
    with pytest.raises(FoveaError, match="did you mean Pong"):
        streams(Config(), "atari/Pongg", 3)
    with pytest.raises(ValueError, match=r"^seed: -1"):
        Config(seed=-1)
    with pytest.raises(ValueError, match=r"^streams: 0"):
        Config(streams=0)


def test_same_bytes_from_one_process_or_two(tmp_path: Path) -> None:
    """In another order as well; streams travel by pickle."""
    shares = streams(Config(seed=1, streams=4), "atari/Frostbite", 120)
    assert pickle.loads(pickle.dumps(shares)) == shares
    one = run_all(tmp_path / "one", shares)
    (tmp_path / "two").mkdir()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        for done in [pool.submit(share.run, tmp_path / "two", nothing) for share in shares[::-1]]:
            done.result()
    assert one == digests(tmp_path / "two") and len(set(one.values())) == 4


def test_missing_and_damaged_shards_are_played_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Only these are written, with the bytes that they had; sealed ones are not changed."""
    monkeypatch.setattr(parts, "SHARD", 50)
    [stream] = streams(Config(streams=1), "atari/MsPacman", 170)
    counts: list[int] = []
    stream.run(tmp_path, counts.append)
    whole = digests(tmp_path)
    assert list(whole) == [f"000-0000{i}.tar" for i in range(4)] and counts == [50, 50, 50, 20]
    (tmp_path / "000-00001.tar").unlink()
    (tmp_path / "000-00003.tar").unlink()
    written = (tmp_path / "000-00002.tar").stat().st_mtime_ns
    counts.clear()
    stream.run(tmp_path, counts.append)
    assert digests(tmp_path) == whole and sum(counts) == 170
    assert (tmp_path / "000-00002.tar").stat().st_mtime_ns == written
    spoilt = tmp_path / "000-00002.tar"
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"x")  # where tar looks at nothing
    stream.run(tmp_path, counts.append)
    assert digests(tmp_path) == whole
    assert "000-00002.tar: does not match its SHA-256" in capfd.readouterr().err
    monkeypatch.setattr(Stream, "frames", None)  # nothing is played where nothing is missing
    stream.run(tmp_path, counts.append)


PROGRAM = """
import sys
from pathlib import Path
from datasets import streams
from datasets.sources import random
streams.SHARD = 40
[stream] = random.streams(random.Config(seed=5, streams=1), "atari/Frostbite", 240)
stream.run(Path(sys.argv[1]), lambda count: print(count, flush=True))
"""


@pytest.mark.parametrize("sealed", [0, 2, 5])
def test_killed_and_run_again_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sealed: int
) -> None:
    """`kill -9` at a random moment after so many shards."""
    folder = tmp_path / "killed"
    folder.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(sealed):
            process.stdout.readline()
        time.sleep(float(np.random.default_rng().uniform(0, 0.04)))
        process.kill()
    left = [path for path in folder.iterdir() if path.suffix == ".tar"]
    assert sealed <= len(left) <= 6
    monkeypatch.setattr(parts, "SHARD", 40)
    shares = streams(Config(seed=5, streams=1), "atari/Frostbite", 240)
    assert run_all(folder, shares) == run_all(tmp_path / "whole", shares)
