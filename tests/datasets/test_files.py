"""JSON and names from untrusted files: bounds, and short messages."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from datasets.errors import FoveaError
from datasets.files import DEPTH, inside, read_json

LETTERS = b"a" * 100_000
MANY = b",".join(b'"%d": 0' % number for number in range(100_000))
BAD = {
    "nested": (b"[" * 100_000, "nested more than 32 deep"),
    "objects nested": (b'{"a":' * 100_000, "nested more than 32 deep"),
    "nested just too deep": (b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1), "nested more than 32 deep"),
    "5,000 digits": (b'{"n": ' + b"9" * 5000 + b"}", "an integer of 5000 digits"),
    "41 digits": (b"1" * 41, "an integer of 41 digits"),
    "infinite": (b"[1e999]", "'1e999' is not a finite number"),
    "no number": (b"[NaN]", "'NaN' is not a finite number"),
    "a key twice": (b'{"a": 1, "b": {"c": 1, "c": 1}}', "key 'c' occurs 2 times"),
    "one of many keys twice": (b"{%s, %s}" % (MANY, b'"7": 1'), "key '7' occurs 2 times"),
    "a long key twice": (b'{"%s": 1, "%s": 1}' % (LETTERS, LETTERS), "key 'aaa"),
    "no text": (b"\xff", "can't decode byte"),
    "empty": (b"", "Expecting value"),
    "cut off": (b'{"a": "' + LETTERS, "Unterminated string"),
    "too large": (b" " * ((1 << 24) + 1), "larger than 16777216 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_json_is_refused(tmp_path: Path, name: str) -> None:
    path, (text, says) = tmp_path / "config.json", BAD[name]
    path.write_bytes(text)
    began = time.monotonic()
    with pytest.raises(FoveaError) as error:
        read_json(path)
    message = str(error.value)
    assert message.startswith(f"{path}: not readable as JSON (") and says in message
    assert len(message) < 400 and time.monotonic() - began < 1


def test_good_json_is_read(tmp_path: Path) -> None:
    value = {"a": [1, -2.5e-3, "…", None, True, {}], "n": 10**39}
    for _ in range(DEPTH - 3):
        value = {"a": value}
    (tmp_path / "config.json").write_text(json.dumps(value))
    assert read_json(tmp_path / "config.json") == value
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "other.json")


NAMES: list[object] = [
    *("", ".", "..", "/etc/passwd", "a/../b", "../a", "a//b", "a/", "a\0b", "a\nb", "\ud800"),
    *("a" * 100_000, "ä" * 128, "a/" * 33 + "a", 7, None, ["a"]),
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_outside_of_the_folder_are_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(ValueError, match="is not the name of a file inside its folder") as error:
        inside(tmp_path, name)
    assert len(str(error.value)) < 120


@pytest.mark.parametrize("name", ["a", "seed-0/curve.csv", "a" * 255, "ä" * 127, ".a", "..a"])
def test_names_of_files(tmp_path: Path, name: str) -> None:
    assert inside(tmp_path, name) == tmp_path / name
