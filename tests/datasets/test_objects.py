"""Objects from RAM against OCAtari's boxes, and against the frames' pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets import envs
from datasets.annotation.objects import Config, annotate
from datasets.annotation.ram import Box, boxes
from datasets.errors import FoveaError
from datasets.frame import Frame
from datasets.shards import FrameSet, read_frames, write_shard
from datasets.sources import random

# 30 frames of a random policy a game: RAM and the boxes of OCAtari 2.2.1 (ocatari.ram.<game>'s
# _detect_objects_ram, with numpy 1.26 and ale-py 0.12.1), without pellets and the igloo.
STORED = json.loads((Path(__file__).parent / "ocatari.json").read_text())


def points_of(frame: dict[str, Any]) -> list[Box]:
    return [Box(*box) for box in frame["boxes"]]


def unmatched(ours: Sequence[Box], theirs: Sequence[Box], near: dict[str, float]) -> list[Box]:
    """Their objects for which we have none of the same kind at the same place."""
    left, missing = list(ours), []
    for box in theirs:
        at = np.array(box.centre)
        same = [o for o in left if o.kind == box.kind]
        distance = [np.abs(np.array(o.centre) - at).max() for o in same]
        if same and min(distance) <= near.get(box.kind, 0.5):
            left.remove(same[int(np.argmin(distance))])
        else:
            missing.append(box)
    return missing


@pytest.mark.parametrize("game", STORED)
def test_boxes_are_ocataris(game: str) -> None:
    """In both directions, except for objects that are not visible: robots between two rooms, a
    player who has sunk.
    """
    kinds: dict[str, int] = {}
    for frame in STORED[game]:
        ram = np.frombuffer(bytes.fromhex(frame["ram"]), np.uint8)
        theirs, ours = points_of(frame), boxes(game, ram)
        if game == "Berzerk" and ram[80] >= 44:
            assert not ours
            continue
        theirs = [box for box in theirs if box.kind != "player" or box.height > 9]
        near = {"missile": 4.0}
        if game == "Frostbite":  # of a player who sinks, OCAtari boxes the rest
            near = {"player": 5.0}
        assert not unmatched(ours, theirs, near) and not unmatched(theirs, ours, near)
        for box in ours:
            kinds[box.kind] = kinds.get(box.kind, 0) + 1
    expected = {
        "Frostbite": {"player", "floe", "animal"},
        "Berzerk": {"player", "robot", "missile"},
        "MsPacman": {"player", "ghost"},
    }
    assert kinds.keys() == expected[game] and sum(kinds.values()) > 100


def collected(game: str, folder: Path, count: int = 300) -> FrameSet:
    for stream in random.streams(random.Config(streams=2), f"atari/{game}?screen=gray84", count):
        stream.run(folder, lambda _: None)
    return read_frames(folder)


def test_objects_of_gray_frames_are_on_the_canvas(tmp_path: Path) -> None:
    """One point an object, on any screen, without omitted kinds. Visible objects are fewer: on
    maxima of two screens some of Ms. Pacman's ghosts are missing.
    """
    env, frames = "atari/MsPacman?screen=gray84", collected("MsPacman", tmp_path)
    points = annotate(Config(), env, frames, 200)["objects"]
    assert len(points) == 200
    for index, places in points.items():
        centres = [box.centre for box in boxes("MsPacman", frames.info["ram"][index])]
        np.testing.assert_allclose(places, np.array(centres) * 400 / (160, 210))
    some = annotate(Config(visible=True), env, frames, 100)["objects"]
    pairs = [(len(some[i]), len(points[i])) for i in some if i in points]
    visible, known = np.array(pairs).sum(0)
    assert 0.85 < visible / known < 0.99
    alone = annotate(Config(omit=("ghost",)), env, frames, 50)["objects"]
    assert {len(places) for places in alone.values()} == {1}


def test_a_blank_frame_has_no_visible_object(tmp_path: Path) -> None:
    """The blanked half of a frame has no visible objects."""
    ram = np.frombuffer(bytes.fromhex(STORED["Berzerk"][3]["ram"]), np.uint8)
    image = np.zeros((84, 84, 1), np.uint8)
    at = [box for box in boxes("Berzerk", ram) if box.kind == "robot"]
    for box in at[1:]:
        left, top = int(box.x * 84 / 160), int(box.y * 84 / 210)
        image[top : top + 8, left : left + 5] = 200
    background = np.zeros_like(image)
    rows = [Frame(each, 0, 0.0, False, False, 0, step, {"ram": ram})
            for step, each in enumerate([background] * 4 + [image])]  # fmt: skip
    write_shard(tmp_path / "000-00000.tar", rows, stream=0, start=0)
    frames, env = read_frames(tmp_path), "atari/Berzerk?screen=gray84"
    visible = annotate(Config(visible=True), env, frames, 1)["objects"]
    assert list(visible) == [4] and len(visible[4]) == len(at) - 1
    with pytest.raises(FoveaError, match=r"1 frames of 5 of .* have an object, count is 2"):
        annotate(Config(visible=True), env, frames, 2)


def test_points_of_metaworld_are_those_within_the_frame(tmp_path: Path) -> None:
    places = np.array([[2, 2], [-1, 3], [5, 12]], np.float32)
    places[2] = np.nan
    frame = Frame(np.zeros((16, 16, 3), np.uint8), 0, 0.0, False, False, 0, 0, {"points": places})
    write_shard(tmp_path / "000-00000.tar", [frame], stream=0, start=0)
    points = annotate(Config(), "metaworld/reach", read_frames(tmp_path), 1)["objects"]
    np.testing.assert_allclose(points[0], [[50.0, 50.0]])


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    frames = collected("Pong", tmp_path, 10)
    for env in ("atari/Pong?screen=gray84", "atari/{MsPacman,Pong}?screen=gray84"):
        envs.members(env)
        with pytest.raises(FoveaError, match=r"objects of metaworld/\*, atari/MsPacman, .* not of"):
            annotate(Config(), env, frames, 5)
    with pytest.raises(ValueError, match=r"omit: 'ghosts', must be of player, ghost"):
        Config(omit=("ghosts",))
