"""Click files: round trips, damage, and concurrent changes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.annotation import choice, heatmap_js
from datasets.annotation.click_file import (
    MOST,
    ConflictError,
    FrameClicks,
    change,
    path_of,
    read_clicks,
    read_points,
    write_clicks,
)
from datasets.annotation.human import Config, annotate
from datasets.errors import FoveaError
from datasets.shards import FrameSet
from tests.datasets.test_annotation import some_frames
from tests.datasets.test_shards import flip

DIGEST = "ab" * 32
KEYS = ["000-00000000", "000-00000001", "001-00000000"]


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "alice.json"
    assert read_clicks(path) == {}
    marked = {
        KEYS[1]: FrameClicks(DIGEST, ((0.0, 400.0), (12.5, 3.1))),
        KEYS[0]: FrameClicks(DIGEST, ((7.0, 7.0),)),
        KEYS[2]: FrameClicks(DIGEST, ()),
    }
    write_clicks(path, marked)
    assert read_clicks(path) == {key: one for key, one in marked.items() if one.points}
    lines = path.read_text().splitlines()
    assert [line[:14] for line in lines[4:6]] == [f'"{key}"' for key in KEYS[:2]]
    assert json.loads(path.read_text())["frames"][KEYS[1]]["clicks"] == [[0, 400], [12.5, 3.1]]
    write_clicks(path, {})
    assert read_clicks(path) == {}


FAULTS: dict[str, tuple[Callable[[str], str], str]] = {
    "cut in half": (lambda text: text[: len(text) // 2], "damaged or not a click file"),
    "empty": (lambda text: "", "damaged or not a click file"),
    "no text": (lambda text: "\udcff", "damaged or not a click file"),
    "nested": (lambda text: "[" * 100_000, "damaged or not a click file"),
    "a list": (lambda text: "[]", "its keys are not those of a click file"),
    "another format": (lambda text: text.replace("clicks/1", "clicks/9"), "not fovea-clicks/1"),
    "another canvas": (lambda text: text.replace("400,", "450,", 1), "on a canvas of 400"),
    "no frames": (lambda text: '{"format": "fovea-clicks/1", "canvas": 400, "frames": 3}', "file"),
    "a strange key": (lambda text: text.replace("000-0", "../-0"), "frame '../-0000000"),
    "no digest": (lambda text: text.replace(DIGEST, "abc"), "'abc' is not a SHA-256"),
    "a click outside": (
        lambda text: text.replace("7.5", "400.1"),
        "click 1: [400.1, 8.0]",
    ),
    "a click that is none": (
        lambda text: text.replace("7.5", "NaN"),
        "'NaN' is not a finite number",
    ),
    "a click moved": (lambda text: text.replace("7.5", "7.6"), f"frame {KEYS[0]}: its line does"),
    "another crc32": (lambda text: text.replace("}\n}", "0}\n}", 1), f"frame {KEYS[0]}: its line"),
    "a digest that is no string": (
        lambda text: text.replace(f'"{DIGEST}"', "7"),
        "7 is not a SHA-256",
    ),
    "a frame twice": (
        lambda text: text.replace("\n}\n}", f",{text.splitlines()[4]}\n}}\n}}"),
        f"key '{KEYS[0]}' occurs 2 times",
    ),
    "an integer of 5,000 digits": (lambda text: text.replace("7.5", "7" * 5000), "5000 digits"),
    "a key of 100,000 letters": (lambda text: text.replace("000-0", "0" * 100_000), "frame '000"),
    "half a click": (lambda text: text.replace("7.5, ", ""), "click 1: [8.0] is not a pair"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_damaged_file_is_named_with_the_frame(tmp_path: Path, name: str) -> None:
    path, (spoil, says) = tmp_path / "alice.json", FAULTS[name]
    write_clicks(path, {KEYS[0]: FrameClicks(DIGEST, ((7.5, 8.0),))})
    path.write_bytes(spoil(path.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(FoveaError) as raised:
        read_clicks(path)
    assert str(path) in str(raised.value) and "git checkout" in str(raised.value)
    assert says in str(raised.value) and len(str(raised.value)) < 600
    before = path.read_bytes()
    with pytest.raises(FoveaError):
        change(path, KEYS[1], DIGEST, before=(), after=((1.0, 1.0),))
    assert path.read_bytes() == before


def test_any_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "alice.json"
    marked = {
        KEYS[0]: FrameClicks(DIGEST, ((7.5, 8.0),)),
        KEYS[1]: FrameClicks("cd" * 32, ((1.0, 390.2),)),
    }
    write_clicks(path, marked)
    good = path.read_bytes()
    for bit in range(8 * len(good)):
        path.write_bytes(flip(good, bit))
        with contextlib.suppress(FoveaError):
            assert read_clicks(path) == marked


def test_lines_without_crc32_are_accepted(tmp_path: Path) -> None:
    """Lines of older files or edited by hand have none; the next change adds it."""
    path = tmp_path / "alice.json"
    write_clicks(path, {KEYS[0]: FrameClicks(DIGEST, ((7, 8),))})
    path.write_text(re.sub(r', "crc32": \d+', "", path.read_text()).replace("[[7", "[[9"))
    assert read_clicks(path) == {KEYS[0]: FrameClicks(DIGEST, ((9.0, 8.0),))}
    change(path, KEYS[1], DIGEST, before=(), after=((1.0, 1.0),))
    assert path.read_text().count("crc32") == 2 and len(read_clicks(path)) == 2


def test_a_change_must_name_the_current_clicks(tmp_path: Path) -> None:
    path, one, two = tmp_path / "clicks" / "alice.json", ((1.0, 1.0),), ((1.0, 1.0), (2.0, 2.0))
    change(path, KEYS[0], DIGEST, before=(), after=one)
    change(path, KEYS[0], DIGEST, before=(), after=one)  # asked again, the answer was lost
    change(path, KEYS[1], DIGEST, before=(), after=two)
    with pytest.raises(ConflictError) as raised:
        change(path, KEYS[0], DIGEST, before=(), after=two)
    assert raised.value.points == one
    assert read_clicks(path) == {
        KEYS[0]: FrameClicks(DIGEST, one),
        KEYS[1]: FrameClicks(DIGEST, two),
    }
    change(path, KEYS[0], DIGEST, before=one, after=())
    assert list(read_clicks(path)) == [KEYS[1]]


ADDING = """
import sys
from pathlib import Path
from datasets.annotation.click_file import ConflictError, change
path, mine, seen = Path(sys.argv[1]), float(sys.argv[2]), ()
for number in range(60):
    while True:
        try:
            after = (*seen, (mine, float(number)))
            change(path, "000-00000000", "ab" * 32, before=seen, after=after)
            break
        except ConflictError as error:
            seen = error.points
    seen = after
"""


def test_processes_that_write_one_file_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "alice.json"
    command = [sys.executable, "-c", ADDING, str(path)]
    running = [subprocess.Popen([*command, str(n)]) for n in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    points = read_clicks(path)[KEYS[0]].points
    assert len(points) == 180 and set(points) == {(float(a), float(b))
                                                for a in range(3) for b in range(60)}  # fmt: skip


NO_CLICKS: list[object] = [
    *(None, {}, [1, 2], [[1]], [[1, 2, 3]], [["1", 2]], [[True, 2]], [[1, None]], [[-0.1, 2]]),
    *([[1, 400.1]], [[float("nan"), 1]], [[float("inf"), 1]], [[10**400, 1]]),
    [[1, 2]] * (MOST + 1),
]


@pytest.mark.parametrize("written", NO_CLICKS, ids=range(len(NO_CLICKS)))
def test_malformed_clicks_are_refused(written: object) -> None:
    with pytest.raises(ValueError, match="click"):
        read_points(written)
    assert read_points([[0, 400], [1.26, 3.04]]) == ((0.0, 400.0), (1.3, 3.0))


@pytest.mark.parametrize("name", ["", "Alice", "../alice", "a/b", "-a", "a" * 41, "alice\n"])
def test_invalid_names_of_annotators(tmp_path: Path, name: str) -> None:
    with pytest.raises(FoveaError, match="a name consists of"):
        path_of(tmp_path, name)
    assert path_of(tmp_path, "alice-2") == tmp_path / "alice-2.json"


# People's clicks as an annotator


def click(frames: FrameSet, folder: Path, annotator: str, among: slice = slice(None)) -> None:
    """Clicks on some of the first ten frames of the order."""
    key = choice.keys(frames)
    first_frames = choice.order(frames, 0)[:10][among]
    point = (float(len(annotator)), 9.0)
    marked = {key[i]: FrameClicks(choice.digest(frames, i), (point,)) for i in first_frames}
    write_clicks(folder / f"{annotator}.json", marked)


def test_several_people(tmp_path: Path) -> None:
    """Each frame needs clicks of one person, not of all; other frames of a file are ignored."""
    frames = some_frames(50)
    click(frames, tmp_path, "alice")
    click(frames, tmp_path, "bo", slice(0, 3))
    by_name = annotate(Config(), "atari/Pong", frames, 5, tmp_path)
    first_frames = choice.order(frames, 0)[:5]
    assert {who: list(clicks) for who, clicks in by_name.items()} == {
        "alice": first_frames,
        "bo": first_frames[:3],
    }
    np.testing.assert_array_equal(by_name["bo"][first_frames[0]], [[2.0, 9.0]])
    click(frames, tmp_path, "carol", slice(6, 9))  # on none of the five
    assert list(annotate(Config(), "atari/Pong", frames, 5, tmp_path)) == ["alice", "bo"]


def test_frames_without_clicks_name_the_command_for_them(tmp_path: Path) -> None:
    frames = some_frames(50)
    for folder in (tmp_path, tmp_path / "not there"):
        with pytest.raises(
            FoveaError, match="none of 5 frames have clicks; `make annotate NAME=<this entry"
        ):
            annotate(Config(), "atari/Pong", frames, 5, folder)
    click(frames, tmp_path, "alice", slice(0, 4))
    with pytest.raises(FoveaError, match="4 of 5 frames have clicks; `make annotate NAME"):
        annotate(Config(), "atari/Pong", frames, 5, tmp_path)


def test_clicks_on_other_frames_are_refused(tmp_path: Path) -> None:
    frames = some_frames(50)
    click(frames, tmp_path, "alice")
    index = choice.order(frames, 0)[3]
    images = frames.images.copy()
    images[index, 0, 0, 0] ^= 1
    key, was = choice.keys(frames)[index], choice.digest(frames, index)[:12]
    for other in (dataclasses.replace(frames, images=images), some_frames(index)):
        with pytest.raises(FoveaError, match=r"alice\.json: .* \(SHA-256 .*, the frame") as error:
            annotate(Config(), "atari/Pong", other, 5, tmp_path)
        assert "restore those frames" in str(error.value)
    with pytest.raises(FoveaError, match=f"clicks on frame {key} are of another image .*{was}"):
        annotate(Config(), "atari/Pong", dataclasses.replace(frames, images=images), 5, tmp_path)


# The authors' own format


def heatmap(*places: tuple[object, ...]) -> str:
    data = [{"x": x, "y": y, "value": value, "radius": 25} for x, y, value in places]
    return json.dumps({"min": 0, "max": 3, "data": data})


def test_clicks_of_heatmap_js_are_read(tmp_path: Path) -> None:
    (tmp_path / "annotations_000.txt").write_text(heatmap((10, 20, 1), (399, 400, 2)))
    (tmp_path / "annotations_011.txt").write_text(heatmap())
    (tmp_path / "frame_000.png").touch()
    clicks = heatmap_js.read(tmp_path, 12)
    assert clicks == {0: ((10.0, 20.0), (399.0, 400.0), (399.0, 400.0)), 11: ()}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("annotations_012.txt", heatmap(), "012.txt: the frames are 0 to 11"),
        ("annotations_x.txt", heatmap(), "x.txt: the frames are 0 to 11"),
        ("annotations_000.txt", heatmap((1, 2, 1))[:20], "not clicks of heatmap.js"),
        ("annotations_000.txt", "[]", "not clicks of heatmap.js"),
        ("annotations_000.txt", heatmap((401, 2, 1)), "click 1: .*outside of the frame"),
        ("annotations_000.txt", heatmap((1, 2, 0)), "must be a number of clicks"),
        ("annotations_000.txt", heatmap((1, 2, 1.5)), "must be a number of clicks"),
        ("annotations_000.txt", heatmap((1, 2, "many")), "not clicks of heatmap.js"),
        ("annotations_000.txt", heatmap((1, 2, 10**12)), "must be a number of clicks"),
        ("annotations_000.txt", heatmap(*[(1, 2, 900)] * 3), "more than 1000 clicks"),
        ("other.txt", "", "no annotations_NNN"),
    ],
)
def test_what_is_no_heatmap_js_is_refused(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FoveaError, match=says) as raised:
        heatmap_js.read(tmp_path, 12)
    assert str(tmp_path) in str(raised.value)
