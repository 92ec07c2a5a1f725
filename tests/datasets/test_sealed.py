"""Sealed files: no flipped bit is used, and after a kill at any moment the file is sound."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.errors import FoveaError
from datasets.files import sha256_file
from datasets.sealed import (
    DamagedError,
    check_listed,
    check_sealed,
    drop_digests,
    is_sound,
    keep_if_sound,
    read_manifest,
    read_sealed,
    write_manifest,
    write_sealed,
)
from tests.datasets.test_shards import flip


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for data in (b"", b"one", b"two"):
        write_sealed(path, data)
        assert read_sealed(path) == path.read_bytes() == data and keep_if_sound(path)
    drop_digests(tmp_path)
    assert os.listdir(tmp_path) == ["state"] and not is_sound(path), "it has no digest"


def test_any_flipped_bit_of_file_or_digest_is_refused(tmp_path: Path) -> None:
    path, beside = tmp_path / "state", tmp_path / ".state.sha256"
    write_sealed(path, b"old")
    write_sealed(path, np.random.default_rng(0).bytes(100))
    for spoilt, bits in ((path, 800), (beside, 8 * 64)):
        good = spoilt.read_bytes()
        for bit in range(0, bits, 3):
            spoilt.write_bytes(flip(good, bit))
            assert not is_sound(path)
            with pytest.raises(DamagedError, match=r"state: does not match its SHA-256"):
                read_sealed(path)
            with pytest.raises(DamagedError, match=r"state: does not match its SHA-256"):
                check_sealed(tmp_path)
        spoilt.write_bytes(good)
    check_sealed(tmp_path)


def test_a_damaged_file_is_deleted_and_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "piece"
    assert not keep_if_sound(path) and capfd.readouterr().err == ""
    write_sealed(path, b"piece")
    path.write_bytes(b"peace")
    assert not keep_if_sound(path) and os.listdir(tmp_path) == []
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"note: {path}: does not match") and line.endswith("made again")
    write_sealed(path, b"piece")
    path.unlink()
    with pytest.raises(DamagedError, match="piece: does not match"):
        check_sealed(tmp_path)


def test_a_manifest_has_its_own_digest(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    value = {"b": {"x": 1.5e-7, "a": [1, None, "…"]}, "a": "text", "c": 10**20}
    write_manifest(path, value)
    assert read_manifest(path) == value
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))  # the same to JSON
    assert read_manifest(path) == value
    good = path.read_bytes()
    for bit in range(8 * len(good)):
        path.write_bytes(flip(good, bit))
        try:
            assert read_manifest(path) == value, "1.5e-07 may become 1.5E-07"
        except FoveaError as error:
            assert str(path) in str(error)
    for text in ("[]", "{}", '{"sha256": null}', '{"sha256": [1]}'):
        path.write_text(text)
        with pytest.raises(FoveaError, match=r"manifest\.json: does not match"):
            read_manifest(path)


@pytest.mark.parametrize("name", ["weights", "source/weights"])
def test_a_file_has_the_bytes_that_its_manifest_lists(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"good")
    check_listed(path)  # there is no manifest
    write_manifest(tmp_path / "manifest.json", {"files": {name: sha256_file(path)}})
    check_listed(path)
    path.write_bytes(b"gold")
    with pytest.raises(FoveaError, match=r"weights: not the bytes that .*manifest\.json lists"):
        check_listed(path)
    others: list[object] = [{}, None, [], {"other": "00"}]
    for files in others:
        write_manifest(tmp_path / "manifest.json", {"files": files})
        check_listed(path)


class KilledError(Exception):
    """A kill, as far as a file is concerned."""


@dataclass
class Dying:
    """os.open, os.fsync and os.replace; from call number `left` on they fail."""

    left: int

    def __call__(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def last(*arguments: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise KilledError
            return call(*arguments)

        return last


@pytest.mark.parametrize("damaged", [False, True])
def test_after_a_kill_at_any_call_the_file_is_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    """Also after two kills. No kill makes a damaged file a sound one."""
    path = tmp_path / "state"
    for kills in itertools.product(range(8), repeat=2):
        write_sealed(path, b"0")
        if damaged:
            path.write_bytes(b"x")
        for data, kill in zip((b"1", b"2"), kills, strict=True):
            with monkeypatch.context() as patch, pytest.raises(KilledError):
                dying = Dying(kill)
                for name in ("open", "fsync", "replace"):
                    patch.setattr(os, name, dying(getattr(os, name)))
                write_sealed(path, data)
        assert is_sound(path) == (path.read_bytes() in (b"0", b"1", b"2"))
