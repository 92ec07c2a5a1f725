"""Shards: round trips, bytes that depend on frames alone, and bad shards."""

from __future__ import annotations

import errno
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from datasets import archive, shards
from datasets.errors import FoveaError
from datasets.files import sha256_file, write_atomic
from datasets.frame import Frame
from datasets.sealed import drop_digests
from datasets.shards import FrameSet, read_frames, write_shard


def frames(count: int, seed: int = 0, size: int = 6) -> list[Frame]:
    """Noise with values in every field."""
    rng = np.random.default_rng(seed)
    return [
        Frame(
            image=rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
            action=int(rng.integers(18)),
            reward=float(np.float32(rng.normal())),
            terminated=bool(rng.integers(2)),
            truncated=bool(rng.integers(2)),
            episode=i // 7,
            step=i % 7,
            info={"lives": np.asarray(i % 4), "ram": rng.integers(0, 256, 128, dtype=np.uint8)},
        )
        for i in range(count)
    ]


def assert_equal_frames(left: list[Frame], right: list[Frame]) -> None:
    """Every field of every frame."""
    for one, other in zip(left, right, strict=True):
        for name in ("action", "reward", "terminated", "truncated", "episode", "step"):
            assert getattr(one, name) == getattr(other, name), name
        np.testing.assert_array_equal(one.image, other.image)
        assert one.info.keys() == other.info.keys()
        for name, value in one.info.items():
            np.testing.assert_array_equal(value, other.info[name])


@settings(max_examples=15)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(0, 99))
def test_frames_are_read_in_time_order(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], seed: int
) -> None:
    """Several streams of several shards, chunks of three frames."""
    folder = tmp_path_factory.mktemp("frames")
    expected = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "CHUNK", 3)
        for stream, count in enumerate(counts):
            played = frames(count, seed + stream)
            write_shard(folder / f"{stream:03d}-00000.tar", played[:5], stream=stream, start=0)
            if played[5:]:
                write_shard(folder / f"{stream:03d}-00001.tar", played[5:], stream=stream, start=5)
            expected += played
        frame_set = read_frames(folder)
    assert_equal_frames(list(frame_set), expected)
    assert frame_set.stream.tolist() == [i for i, n in enumerate(counts) for _ in range(n)]
    assert len(frame_set) == sum(counts) and frame_set.images.dtype == np.uint8


def test_continuous_actions_are_read(tmp_path: Path) -> None:
    """(A,) float32 instead of an index."""
    action = np.array([0.5, -1.0], np.float32)
    frame = Frame(np.zeros((4, 4, 3), np.uint8), action, 0.0, False, True, 0, 0)
    write_shard(tmp_path / "000-00000.tar", [frame], stream=0, start=0)
    frame_set = read_frames(tmp_path)
    assert frame_set.action.dtype == np.float32 and frame_set.info == {}
    np.testing.assert_array_equal(next(iter(frame_set)).action, action)


def test_bytes_depend_on_frames_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same digest at another time, in another folder, under another name and umask. Another
    digest for another pixel.
    """
    write_shard(tmp_path / "000-00000.tar", frames(9), stream=0, start=0)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    (tmp_path / "other").mkdir()
    before = os.umask(0o077)
    write_shard(tmp_path / "other" / "name.tar", frames(9), stream=0, start=0)
    os.umask(before)
    first = sha256_file(tmp_path / "000-00000.tar")
    assert first == sha256_file(tmp_path / "other" / "name.tar")
    changed = frames(9)
    changed[4].image[0, 0, 0] ^= 1
    write_shard(tmp_path / "000-00000.tar", changed, stream=0, start=0)
    assert first != sha256_file(tmp_path / "000-00000.tar")


def test_plain_webdataset_reads_them(tmp_path: Path) -> None:
    """Keys in time order, arrays by webdataset's own decoder."""
    write_shard(tmp_path / "003-00000.tar", frames(300), stream=3, start=1024)
    source = webdataset.WebDataset(str(tmp_path / "003-00000.tar"), shardshuffle=False)
    samples = list(source.decode())
    assert [sample["__key__"] for sample in samples] == ["003-00001024", "003-00001280"]
    images = np.concatenate([sample["npz"]["image"] for sample in samples])
    np.testing.assert_array_equal(images, np.stack([frame.image for frame in frames(300)]))


def test_numpy_alone_reads_a_member(tmp_path: Path) -> None:
    """tar and npz have the standard forms: tarfile and np.load suffice."""
    write_shard(tmp_path / "000-00000.tar", frames(5), stream=0, start=0)
    with tarfile.open(tmp_path / "000-00000.tar") as tar:
        [member] = tar.getmembers()
        file = tar.extractfile(member)
        assert file is not None and (member.mtime, member.uid, member.uname) == (0, 0, "")
        with np.load(io.BytesIO(file.read()), allow_pickle=False) as columns:
            assert columns["step"].tolist() == [0, 1, 2, 3, 4]


def sealed(folder: Path) -> Path:
    """A folder with one good, published shard."""
    path = folder / "000-00000.tar"
    write_shard(path, frames(4), stream=0, start=0)
    drop_digests(folder)
    return path


def npz(**arrays: NDArray[np.generic]) -> bytes:
    """A member's content as numpy writes it."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for allow_pickle
    return buffer.getvalue()


def tar_of(name: str, data: bytes, **fields: object) -> bytes:
    """A tar of one member whose header has these fields."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        for field, value in fields.items():
            setattr(entry, field, value)
        if entry.size > len(data):
            return entry.tobuf() + data + bytes(1024)
        tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def tar_of_members(count: int, data: bytes) -> bytes:
    """A tar of so many members of the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(count):
            entry = tarfile.TarInfo(f"000-{256 * number:08d}.npz")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def zip_of(name: str, data: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of one entry."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr(name, data)
    return buffer.getvalue()


KEY = "000-00000000.npz"
OBJECTS = np.array([{"runs": "code"}], dtype=object)
HUGE = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
HUGE += b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 96, 96, 3), }".ljust(118)
EVAL = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + b"__import__('os').abort()".ljust(118)

ZEROS = b"\x93NUMPY\x01\x00" + (62).to_bytes(2, "little")
ZEROS += b"{'descr': '|u1', 'fortran_order': False, 'shape': (4000,)}".ljust(62) + bytes(4000)
DEEP = b"\x93NUMPY\x01\x00" + (9000).to_bytes(2, "little") + b"-" * 8999 + b"1"

HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated in a member": (lambda good: good[:1500], "end of the archive"),
    "truncated after a member": (lambda good: good.rstrip(b"\0"), "end of the archive"),
    "empty": (lambda good: b"", "end of the archive"),
    "not a tar": (lambda good: b"x" * 4096 + bytes(1024), "not a shard"),
    "flipped bit": (lambda good: flip(good, 8 * 1000), "not a shard"),
    "parent folder": (lambda good: tar_of("../" + KEY, npz(a=np.ones(1))), "not named"),
    "absolute path": (lambda good: tar_of("/tmp/" + KEY, npz(a=np.ones(1))), "not named"),
    "foreign name": (lambda good: tar_of("readme.txt", b"x"), "not named"),
    "symlink": (
        lambda good: tar_of(KEY, b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "not a regular",
    ),
    "hard link": (
        lambda good: tar_of(KEY, b"", type=tarfile.LNKTYPE, linkname=KEY),
        "not a regular",
    ),
    "device": (lambda good: tar_of(KEY, b"", type=tarfile.CHRTYPE), "not a regular"),
    "10 GB member": (lambda good: tar_of(KEY, b"", size=10 << 30), "claims 10737418240 bytes"),
    "member cut short": (lambda good: tar_of(KEY, b"", size=12_000), "unexpected end"),
    "not a zip": (lambda good: tar_of(KEY, b"x" * 100), "not a shard"),
    "pickle": (lambda good: tar_of(KEY, npz(image=OBJECTS)), "object"),
    "no columns": (lambda good: tar_of(KEY, npz()), "or none"),
    "uneven columns": (lambda good: tar_of(KEY, npz(a=np.ones(1), b=np.ones(2))), "lengths"),
    "header of 2.7 PB": (
        lambda good: tar_of(KEY, zip_of("image.npy", HUGE)),
        "does not match its header's shape",
    ),
    "header that is code": (lambda good: tar_of(KEY, zip_of("image.npy", EVAL)), "not a shard"),
    "path in the zip": (lambda good: tar_of(KEY, zip_of("../image.npy", b"x")), "holds"),
    "other compression": (
        lambda good: tar_of(KEY, zip_of("image.npy", b"x", zipfile.ZIP_LZMA)),
        "holds",
    ),
    "zip bomb": (lambda good: tar_of(KEY, zip_of("image.npy", bytes(30_000))), "unpacks to more"),
    "many members": (lambda good: tar_of_members(8, zip_of("a.npy", ZEROS)), "unpacks to more"),
    "header nested 5,000 deep": (lambda good: tar_of(KEY, zip_of("a.npy", DEEP)), "not a shard"),
    "name of 3,000 letters": (lambda good: tar_of(KEY, zip_of("a" * 3_000, b"")), "holds 'aaa"),
    "frames of nothing": (lambda good: tar_of(KEY, npz(other=np.ones(2))), "has no column action"),
    "frames of floats": (
        lambda good: tar_of(KEY, like_frames(image=np.ones((1, 2, 2, 3)))),
        "image",
    ),
    "reward of ints": (lambda good: tar_of(KEY, like_frames(reward=np.ones(1, int))), "reward"),
    "starts later": (lambda good: tar_of("000-00000256.npz", like_frames()), "instead of 0"),
}


def like_frames(**changed: NDArray[np.generic]) -> bytes:
    """A member of one frame, with some columns replaced."""
    columns = shards._columns(frames(1, size=2))
    return npz(**(columns | changed))


def flip(data: bytes, bit: int) -> bytes:
    """The data with one bit changed."""
    copy = bytearray(data)
    copy[bit // 8] ^= 1 << bit % 8
    return bytes(copy)


@pytest.mark.parametrize("name", HOSTILE)
def test_bad_shards_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """One message names the shard and the remedy; nothing else is written."""
    spoil, says = HOSTILE[name]
    path = sealed(tmp_path)
    path.write_bytes(spoil(path.read_bytes()))
    monkeypatch.setattr(archive, "MAX_BYTES", 20_000)  # so that a bomb of 30,000 bytes will do
    with pytest.raises(FoveaError, match=says) as caught:
        read_frames(tmp_path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 600
    assert os.listdir(tmp_path) == [path.name]


def test_any_flipped_bit_is_refused_or_harmless(tmp_path: Path) -> None:
    """Also without a manifest: never another exception, never other frames."""
    path = sealed(tmp_path)
    good, expected = path.read_bytes(), list(read_frames(tmp_path))
    refused = 0
    for bit in np.random.default_rng(0).integers(0, 8 * len(good), size=300):
        path.write_bytes(flip(good, int(bit)))
        try:
            frame_set = list(read_frames(tmp_path))
        except FoveaError:
            refused += 1
        else:
            assert_equal_frames(frame_set, expected)
    assert refused > 0


def test_digests_are_checked(tmp_path: Path) -> None:
    """The manifest's digest detects a flipped bit that no checksum of tar or zip covers."""
    path = sealed(tmp_path)
    digests = {path.name: sha256_file(path), "contact_sheet.png": "0" * 64}
    assert len(read_frames(tmp_path, digests)) == 4
    path.write_bytes(flip(path.read_bytes(), 8 * (path.stat().st_size - 2048)))  # tar's padding
    assert len(read_frames(tmp_path)) == 4
    with pytest.raises(FoveaError, match="SHA-256 is not"):
        read_frames(tmp_path, digests)


def test_missing_and_extra_shards_are_refused(tmp_path: Path) -> None:
    """By name."""
    path = sealed(tmp_path)
    digests = {path.name: sha256_file(path)}
    with pytest.raises(FoveaError, match=r"000-00001\.tar: is missing"):
        read_frames(tmp_path, digests | {"000-00001.tar": "0" * 64})
    write_shard(tmp_path / "001-00000.tar", frames(1), stream=1, start=0)
    with pytest.raises(FoveaError, match=r"001-00000\.tar: is not in the manifest"):
        read_frames(tmp_path, digests)
    with pytest.raises(FoveaError, match=r"/0{50}.*: is missing") as error:
        read_frames(tmp_path, digests | {"0" * 100_000 + ".tar": "0" * 64})
    assert len(str(error.value)) < 600
    with pytest.raises(FoveaError, match="no shards"):
        read_frames(tmp_path / "nowhere")


def test_gaps_and_mixed_sizes_are_refused(tmp_path: Path) -> None:
    """A shard deleted from the middle, and frames of another size."""
    sealed(tmp_path)
    write_shard(tmp_path / "000-00002.tar", frames(4), stream=0, start=8)
    with pytest.raises(FoveaError, match=r"000-00002\.tar: stream 0 goes on with frame 8 instead"):
        read_frames(tmp_path)
    write_shard(tmp_path / "000-00002.tar", frames(4, size=8), stream=0, start=4)
    with pytest.raises(FoveaError, match=r"000-00002\.tar: its columns' types or shapes differ"):
        read_frames(tmp_path)


def test_write_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a full disk the old file is unchanged, there is no temporary file, and the message has
    the remedy.
    """
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FoveaError, match="the disk is full; free some space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_join_is_concatenation() -> None:
    """And it empties its argument."""
    rng = np.random.default_rng(0)
    parts: list[NDArray[np.generic]] = [rng.integers(0, 9, (n, 2)) for n in (3, 1, 4)]
    expected = np.concatenate(parts)
    np.testing.assert_array_equal(shards.join(parts), expected)
    assert parts == []


def test_a_frame_set_can_be_iterated_twice(tmp_path: Path) -> None:
    """The contract of FrameSource."""
    sealed(tmp_path)
    frame_set: FrameSet = read_frames(tmp_path)
    assert_equal_frames(list(frame_set), list(frame_set))
