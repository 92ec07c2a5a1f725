"""Errors shared through files: always the same bits as computed by one process alone."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pretrain.spirl import error_log
from pretrain.spirl.error_cache import INTERVAL, ErrorCache
from pretrain.spirl.error_log import HEAD, MAGIC, ErrorLog, stamp
from tests.pretrain.spirl.test_memory import PATCHES, SHAPE, build, game, same_bits

PATCH_BYTES = 3 * 8 * 8


def sharing(folder: Path, seed: int = 0) -> ErrorCache:
    memory = ErrorCache(build(seed))
    memory.share(folder)
    return memory


def only_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.errors")
    return path


def noise(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=generator)


def test_a_later_run_computes_nothing_again(tmp_path: Path) -> None:
    frames = game(40)
    first = sharing(tmp_path)
    errors = first(frames)
    later = sharing(tmp_path)
    assert same_bits(later(frames), errors) and same_bits(ErrorCache(build())(frames), errors)
    assert later.misses == 0 and later.hits == 40 * PATCHES
    assert len(list(tmp_path.rglob("*.errors"))) == 1  # who computes nothing writes nothing
    assert later._log and later._log.nbytes == only_file(tmp_path).stat().st_size


def test_two_processes_read_each_other_s_errors(tmp_path: Path) -> None:
    """The second process to meet a frame reads its errors, at most `INTERVAL` frames later."""
    frames = noise(2 * INTERVAL)
    one, other = sharing(tmp_path), sharing(tmp_path)
    errors = one(frames)
    other(noise(INTERVAL, seed=1))  # and looks
    assert same_bits(other(frames), errors) and other.misses == INTERVAL * PATCHES
    assert same_bits(one(noise(INTERVAL, seed=1)), ErrorCache(build())(noise(INTERVAL, seed=1)))
    one(noise(INTERVAL, seed=1))
    assert one.hits == (INTERVAL + 1) * PATCHES  # the last of them after a look


def _work(folder: Path, order: list[int], results: Callable[[Tensor], None]) -> None:
    torch.set_num_threads(1)
    results(sharing(folder)(game(60)[order]))


def test_processes_in_parallel(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    orders = [
        torch.randperm(60, generator=torch.Generator().manual_seed(s)).tolist() for s in (0, 1)
    ]
    expected = ErrorCache(build())(game(60))

    def put(order: list[int]) -> Callable[[Tensor], None]:
        return lambda errors: queue.put((order, errors.numpy()))

    workers = [context.Process(target=_work, args=(tmp_path, o, put(o))) for o in orders]
    for worker in workers:
        worker.start()
    for _ in workers:
        order, errors = queue.get()
        assert same_bits(torch.from_numpy(errors), expected[order])
    for worker in workers:
        worker.join(timeout=30)
        assert worker.exitcode == 0
    assert sharing(tmp_path)(game(60)).shape == expected.shape


def test_other_weights_have_another_folder(tmp_path: Path) -> None:
    assert stamp(build()) == stamp(build()) != stamp(build(1))
    frames = game(5)
    sharing(tmp_path)(frames)
    other = sharing(tmp_path, seed=1)
    assert same_bits(other(frames), ErrorCache(build(1))(frames))
    assert other.misses and len(list(tmp_path.iterdir())) == 2


def test_errors_of_other_weights_are_rejected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Even in the wrong folder."""
    frames = game(5)
    sharing(tmp_path / "theirs", seed=1)(frames)
    ours = tmp_path / "ours" / stamp(build()).hex()[:16]
    ours.mkdir(parents=True)
    only_file(tmp_path / "theirs").rename(ours / "stray.errors")
    memory, alone = sharing(tmp_path / "ours"), ErrorCache(build())
    assert same_bits(memory(frames), alone(frames)) and memory.misses == alone.misses
    assert "stray.errors: ignored from here on, a block is damaged, or of another" in caplog.text


def test_errors_of_a_machine_that_rounds_otherwise_are_rejected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Although weights and versions are the same, and the checksums correct."""
    frames = game(5)
    sharing(tmp_path)(frames)
    forge(only_file(tmp_path), lambda keys, errors: np.nextafter(errors, np.float32(9), out=errors))
    memory, alone = sharing(tmp_path), ErrorCache(build())
    assert same_bits(memory(frames), alone(frames)) and memory.misses == alone.misses
    assert "ignored from here on, its errors are not those of this encoder" in caplog.text


def test_a_torn_end_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = game(5)
    errors = sharing(tmp_path)(frames)
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-7])
    memory = sharing(tmp_path)
    assert same_bits(memory(frames), errors) and 0 < memory.misses < PATCHES
    assert "bytes are ignored, since they are a part of a block" in caplog.text


def test_changed_weights_stop_sharing(tmp_path: Path) -> None:
    memory, frames = sharing(tmp_path), game(5)
    memory(frames)
    before = only_file(tmp_path).read_bytes()
    memory.model.load_state_dict(build(1).state_dict())
    assert same_bits(memory(frames), ErrorCache(build(1))(frames))
    assert only_file(tmp_path).read_bytes() == before


def test_every_damage_is_noticed(tmp_path: Path) -> None:
    """A byte changed or lost anywhere costs cache hits, and never changes a result."""
    frames = game(8)
    errors = sharing(tmp_path)(frames)
    path = only_file(tmp_path)
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 40)):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        for damaged in (bytes(changed), whole[:at], whole[:at] + whole[at + 1 :]):
            path.write_bytes(damaged)
            memory = sharing(tmp_path)
            assert same_bits(memory(frames), errors)
            assert memory.misses or damaged == whole
            for other in set(tmp_path.rglob("*.errors")) - {path}:
                other.unlink()
    path.write_bytes(b"")
    assert same_bits(sharing(tmp_path)(frames), errors)


def forge(path: Path, change: Callable[[np.ndarray, np.ndarray], None]) -> None:
    """Change keys and errors of a file's first block, and correct its checksum."""
    whole = path.read_bytes()
    patches, count, _ = HEAD.unpack_from(whole, len(MAGIC))
    begin = len(MAGIC) + HEAD.size
    middle = begin + patches * PATCH_BYTES
    end = middle + 44 * count
    keys = np.frombuffer(whole[middle : end - 4 * count], np.int32).reshape(count, 10).copy()
    errors = np.frombuffer(whole[end - 4 * count : end], np.float32).copy()
    change(keys, errors)
    payload = whole[begin:middle] + keys.tobytes() + errors.tobytes()
    head = HEAD.pack(patches, count, error_log._checksum(payload, stamp(build())))
    path.write_bytes(MAGIC + head + payload + whole[end:])


@pytest.mark.parametrize(
    "change",
    [
        lambda keys, errors: errors.__setitem__(-1, np.nextafter(errors[-1], np.float32(9))),
        lambda keys, errors: errors.fill(np.nan),
        lambda keys, errors: keys.__setitem__((0, 0), PATCHES),
        lambda keys, errors: keys.__setitem__((0, 0), -1),
        lambda keys, errors: keys.__setitem__((0, 5), 2**31 - 1),
        lambda keys, errors: keys.__setitem__((0, 5), -(2**31)),
    ],
)
def test_a_complete_but_wrong_block_is_rejected(
    tmp_path: Path, change: Callable[[np.ndarray, np.ndarray], None]
) -> None:
    frames = game(6)
    errors = sharing(tmp_path)(frames)
    forge(only_file(tmp_path), lambda keys, errors: None)
    good = sharing(tmp_path)
    assert same_bits(good(frames), errors) and good.misses == 0
    forge(only_file(tmp_path), change)
    memory = sharing(tmp_path)
    assert same_bits(memory(frames), errors) and memory.misses > 0


def test_errors_of_nan_are_not_shared(tmp_path: Path) -> None:
    """A seed with a broken encoder must not affect the others."""
    broken, frames = sharing(tmp_path), game(5)
    broken.model.mask_token.data[0, 0, 0] = float("nan")  # no version counter tells of it
    assert not broken(frames).isfinite().all() and broken.nbytes < 5 * broken._frame_bytes
    assert not list(tmp_path.rglob("*.errors"))
    assert same_bits(sharing(tmp_path)(frames), ErrorCache(build())(frames))


def test_a_store_keeps_its_bytes(tmp_path: Path) -> None:
    memory, mark = ErrorCache(build()), stamp(build())
    other = tmp_path / "0123456789abcdef" / "old.errors"  # of weights long gone
    other.parent.mkdir()
    other.write_bytes(bytes(20_000))
    memory._log = log = ErrorLog(tmp_path, mark, PATCH_BYTES, limit=80_000)
    for seed in range(12):
        memory(noise(1, seed))
    old = only_file(log.folder)
    assert log.nbytes == 20_000 + old.stat().st_size <= 80_000
    assert same_bits(memory(noise(1, 11)), ErrorCache(build())(noise(1, 11)))
    again = ErrorLog(tmp_path, mark, PATCH_BYTES, limit=80_000)
    assert again.nbytes == 0 and not old.exists() and not other.exists()  # half the room, at most
    memory(noise(20, 99))
    assert only_file(log.folder) != old  # ours is gone: we have begun another
    assert len(list(again.news())) > 0 and not again._damaged


def test_a_full_file_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_log, "PATCHES", 5)
    frames = game(30)
    errors = sharing(tmp_path)(frames)
    assert len(list(tmp_path.rglob("*.errors"))) > 1
    later = sharing(tmp_path)
    assert same_bits(later(frames), errors) and later.misses == 0


def test_a_full_file_without_space_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors after there is space again are still stored under their own patches."""
    monkeypatch.setattr(error_log, "PATCHES", 2 * PATCHES)
    frames = noise(4)
    memory = sharing(tmp_path)
    memory(frames[:2])  # all that a file shows
    assert memory._log
    limit, memory._log.limit = memory._log.limit, memory._log.nbytes
    memory(frames[2:3])
    memory._log.limit = limit
    memory(frames[3:])
    later = sharing(tmp_path)
    assert same_bits(later(frames), ErrorCache(build())(frames))
    assert later.misses == PATCHES  # the third frame's alone


@pytest.mark.parametrize("fault", ["gone", "folder", "full", "forbidden"])
def test_files_that_fail_only_cost_time(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    folder, frames = tmp_path / stamp(build()).hex()[:16], game(2 * INTERVAL)
    expected = ErrorCache(build())(frames)
    folder.mkdir()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if fault == "gone":  # between its name and its size being read
        (folder / "gone.errors").symlink_to(tmp_path / "nowhere")
    if fault == "folder":
        (folder / "folder.errors").mkdir()
    if fault == "full":
        monkeypatch.setattr(tempfile, "mkstemp", fail)
    if fault == "forbidden":
        monkeypatch.setattr(Path, "mkdir", fail)
    assert same_bits(sharing(tmp_path)(frames), expected)
    messages = {"gone": "", "folder": "folder.errors: ignored from here on, it cannot be read"}
    assert messages.get(fault, "errors are no longer shared") in caplog.text
    assert caplog.text.count("no longer shared") <= 1
