"""The table of one of Atari-HEAD's recordings (datasets/recordings.py): a row for each frame.

    frame_id,episode_id,score,duration(ms),unclipped_reward,action,gaze_positions
    RZ_2394668_42,0,7,50,0,3,80.25,101.50,80.75,102.00

Gaze is the rest of the row, x0, y0, x1, y1, … in pixels of the frame: samples of the eye tracker at
1 kHz while the frame was shown, some of them outside of it. Any value may be `null`. A frame number
counts from 1. Shares nothing with a CSV file but the commas: rows have different lengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.errors import quoted

COLUMNS = ("frame_id", "episode_id", "unclipped_reward", "action", "gaze_positions")
NULL = "null"
ACTIONS = 18  # of the emulator
MOST = 1 << 20  # frames: fourteen hours


@dataclass(frozen=True)
class Recording:
    """A table's columns; row i is frame number i + 1."""

    episode: NDArray[np.int64]  # (N,) that of the row before where it is missing
    reward: NDArray[np.float64]  # (N,) 0 where it is missing
    action: NDArray[np.int64]  # (N,) the emulator's number; 0, no-op, where it is missing
    gaze: list[NDArray[np.float64]]  # (n, 2) each: x, y; without missing ones

    def __len__(self) -> int:
        return len(self.gaze)


def parse_table(text: str, session: str) -> Recording:
    """The table of the recording whose frames' names begin with `session`.

    A frame without a row has no gaze. Raises ValueError naming the line.
    """
    header, *lines = text.splitlines() or [""]
    names = [name.strip() for name in header.split(",")]
    if names[-1] != COLUMNS[-1] or not set(COLUMNS) <= set(names):
        raise ValueError(f"its columns are {quoted(header, 100)}, not {', '.join(COLUMNS)}")
    rows: dict[int, list[str]] = {}
    number = 0
    for line, row in enumerate(([field.strip() for field in text.split(",")] for text in lines), 2):
        if len(row) < len(names):
            raise ValueError(f"line {line} has {len(row)} of {len(names)} columns")
        before, number = number, _number(row[names.index(COLUMNS[0])], session, line)
        if number <= before:
            raise ValueError(f"line {line}: frame {number} is out of order")
        rows[number] = row
    if not rows:
        raise ValueError("it has no rows")
    return _recording(names, rows)


def _number(frame: str, session: str, line: int) -> int:
    """The number in a `frame_id`."""
    begin, _, number = frame.rpartition("_")
    if begin != session:
        raise ValueError(f"line {line}: {quoted(frame)} is a frame of another recording")
    if not (number.isdecimal() and number.isascii() and 0 < int(number[:9]) <= MOST):
        raise ValueError(f"line {line}: {quoted(frame)} has no number from 1 to {MOST}")
    return int(number[:9])


def _recording(names: list[str], rows: dict[int, list[str]]) -> Recording:
    count = max(rows)
    recording = Recording(
        np.zeros(count, np.int64),
        np.zeros(count),
        np.zeros(count, np.int64),
        [np.empty((0, 2))] * count,
    )
    at = {name: names.index(name) for name in COLUMNS}
    episode = 0
    for number in range(1, count + 1):
        if row := rows.get(number):
            where = f"frame {number}"
            episode = int(_value(row[at["episode_id"]], episode, where))
            action = int(_value(row[at["action"]], 0, where))
            if not 0 <= action < ACTIONS:
                raise ValueError(f"{where}: action {action}, must be 0 to {ACTIONS - 1}")
            recording.action[number - 1] = action
            recording.reward[number - 1] = _value(row[at["unclipped_reward"]], 0, where)
            recording.gaze[number - 1] = _gaze(row[at["gaze_positions"] :], where)
        recording.episode[number - 1] = episode
    return recording


def _value(field: str, missing: float, where: str) -> float:
    """A field's number. Raises ValueError for anything but a finite one or `null`."""
    if field == NULL:
        return missing
    try:
        value = float(field)
    except ValueError:
        value = math.nan
    if not abs(value) < 1 << 31:
        raise ValueError(f"{where}: {quoted(field)} is not a number")
    return value


def _gaze(fields: list[str], where: str) -> NDArray[np.float64]:
    """The samples (n, 2) that are not missing."""
    if fields in ([NULL], [""]):
        return np.empty((0, 2))
    try:
        values = [math.nan if field == NULL else float(field) for field in fields]
    except ValueError as error:
        raise ValueError(f"{where}: gaze is not of numbers ({error})") from error
    if len(values) % 2:
        raise ValueError(f"{where}: gaze has {len(values)} values, which are not pairs")
    pairs = np.array(values).reshape(-1, 2)
    return np.asarray(pairs[np.isfinite(pairs).all(axis=1)])
