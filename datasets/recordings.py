"""Atari-HEAD's recordings of people who play with an eye tracker, in both published layouts.

Zhang et al. (2020), "Atari-HEAD: Atari Human Eye-Tracking and Demonstration Dataset". A trial is a
table `<trial>_<subject>_<id>_<date>.txt` (datasets/gaze_table.py), and an archive of the same name
with `.tar.bz2`. That has the frames `<subject>_<id>_<n>.png` of 160x210 pixels, with n from 1.

    versions 1 and 2 (Zenodo 2603190)   all trials in one folder; meta_data.csv names their games
    version 4 (Zenodo 3451402)          a <game>.zip for each game, beside meta_data.csv; its folder
                                        `highscore`, of other trials, is not read

Files may come from anywhere. Nothing is unpacked to disk, members must have the expected names and
sizes, and what is unpacked in memory is bounded.
"""

from __future__ import annotations

import bz2
import csv
import io
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.errors import FoveaError, brief, quoted
from datasets.gaze_table import Recording, parse_table

FOLDER = Path("recordings/atari_head")
META = "meta_data.csv"
META_COLUMNS = (("Game", "TrialNumber"), ("GameName", "trial_id"))  # of the two layouts
WIDTH, HEIGHT = 160, 210  # of a frame
FRAMES, TABLE = ".tar.bz2", ".txt"
TRIAL = re.compile(r"(\d{1,9})_([A-Za-z0-9]+_\d+)_[^/]*")  # without an ending
FRAME = re.compile(r"(?:\./)?(?:[^/]+/)?([A-Za-z0-9]+_\d+)_(\d{1,9})\.png")
# Bytes: of a table, of an archive's content, of a frame (one without compression has 100,800).
MAX_TABLE, MAX_FRAMES, MAX_FRAME = 1 << 28, 1 << 29, 1 << 18


@dataclass(frozen=True)
class Trial:
    """One recording. Picklable."""

    number: int
    session: str  # `<subject>_<id>`, with which the names of its frames begin
    container: Path  # the folder, or the zip
    stem: str  # of its two names there

    def name(self, ending: str) -> str:
        """The table's or the frames' name, as messages have it."""
        return f"{self.container}/{self.stem}{ending}"


def find_trials(game: str, chosen: Sequence[int] = (), folder: Path = FOLDER) -> list[Trial]:
    """The trials of a game, by number; of these numbers only, if there are any.

    Raises FoveaError naming what is missing, or a recording that is of another game.
    """
    path = folder / META
    if not path.is_file():
        raise FoveaError(
            f"{path}: missing; put Atari-HEAD's files into {folder}, as the README's section "
            '"Compare with gaze" says'
        )
    games = _games(path)
    zips = {_plain(archive.stem): archive for archive in sorted(folder.glob("*.zip"))}
    if _plain(game) not in games.values():
        known = ", ".join(sorted(set(games.values())))
        raise FoveaError(f"{path}: has no trial of {game}, but those of {known}; name one of them")
    if zips and _plain(game) not in zips:
        names = ", ".join(archive.name for archive in zips.values())
        raise FoveaError(f"{folder}: has no zip of {game}, but {names}; download that of {game}")
    if zips:
        trials = _in_zip(game, zips[_plain(game)], games)
        numbers = set(trials)
    else:
        trials = _trials(folder, sorted(path.name for path in folder.iterdir()))
        numbers = {number for number, name in games.items() if name == _plain(game)}
    for number in sorted(chosen or numbers):
        if number not in numbers:
            known = ", ".join(map(str, sorted(numbers)))
            raise FoveaError(f"trials: {number} is not one of {game}, which has {known}")
        if number not in trials:
            raise FoveaError(
                f"{folder}/{number}_*{FRAMES}: missing, {META} has trial {number} of {game}; "
                "download it, or list those to read with `trials: […]`"
            )
    return [trials[number] for number in sorted(set(chosen) or numbers)]


def read_recording(trial: Trial) -> Recording:
    """A trial's table. Raises FoveaError naming the file and the line or frame."""
    with _open(trial, TABLE) as file:
        data = file.read(MAX_TABLE + 1)
        if len(data) > MAX_TABLE:
            raise ValueError(f"more than {MAX_TABLE} bytes")
        return parse_table(data.decode("utf-8"), trial.session)


def read_frames(trial: Trial, numbers: set[int], last: int) -> dict[int, bytes]:
    """The PNG files of the frames of these numbers; `last` is the number of the table's last row.

    Raises FoveaError naming the archive, where frames are missing or it has anything else.
    """
    frames: dict[int, bytes] = {}
    known: set[int] = set()
    with _open(trial, FRAMES) as file, bz2.open(file) as unpacked:
        bounded = _Bounded(unpacked)
        with tarfile.open(fileobj=bounded, mode="r|") as archive:
            for entry in archive:
                if entry.isdir():
                    continue
                number = _number(trial, entry)
                # The recorder saves a frame before its row, so the last one may have no row.
                if number in known or not 1 <= number <= last + 1:
                    raise ValueError(f"frame {number} is there twice, or has no row in the table")
                known.add(number)
                member = archive.extractfile(entry)
                if number in numbers and member is not None:
                    frames[number] = member.read()
        while bounded.read(1 << 20):  # to the end, where the checksum is
            pass
        if absent := numbers - frames.keys():
            raise ValueError(f"{len(absent)} frames are missing, such as number {min(absent)}")
    return frames


def decode(trial: Trial, number: int, data: bytes) -> NDArray[np.uint8]:
    """A frame's pixels (210, 160, 3). Raises FoveaError where it is no such image."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != (WIDTH, HEIGHT):  # before anything is unpacked
                raise ValueError(f"{image.width}x{image.height} pixels, not {WIDTH}x{HEIGHT}")
            return np.array(image.convert("RGB"), np.uint8)
    except Exception as error:  # Pillow raises a dozen kinds
        raise _damaged(trial, FRAMES, f"frame {number}: {brief(error)}") from error


def _games(path: Path) -> dict[int, str]:
    """Trial -> its game, as _plain() has it; lines without a trial are skipped."""
    try:
        rows = list(csv.DictReader(path.read_text("utf-8-sig").splitlines()))
        columns = set(rows[0] if rows else ())
        game, number = next(pair for pair in META_COLUMNS if set(pair) <= columns)
        return {
            int(float(row[number])): _plain(row[game]) for row in rows if row[game] and row[number]
        }
    except (OSError, OverflowError, StopIteration, ValueError, csv.Error) as error:
        raise FoveaError(
            f"{path}: not Atari-HEAD's, which has the columns Game and TrialNumber, or GameName "
            f"and trial_id ({brief(error) or 'not there'}); download it again"
        ) from error


def _plain(game: str) -> str:
    """`MsPacman`, `Mspacman` and `ms_pacman` are one game."""
    return re.sub(r"[^a-z0-9]", "", game.lower())


def _in_zip(game: str, path: Path, games: Mapping[int, str]) -> dict[int, Trial]:
    """All trials that are in a game's zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [one for one in archive.namelist() if "highscore" not in one.split("/")]
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise FoveaError(
            f"{path}: damaged or half downloaded ({brief(error)}); download it again"
        ) from error
    trials = _trials(path, names)
    for number, trial in trials.items():
        if games.get(number, _plain(game)) != _plain(game):
            raise FoveaError(
                f"{trial.name(FRAMES)}: trial {number} is of {games[number]} in {META}, not of "
                f"{game}; download the zip of {game} again"
            )
    if not trials:
        raise FoveaError(f"{path}: has no *{FRAMES} in it; download it again")
    return trials


def _trials(container: Path, names: list[str]) -> dict[int, Trial]:
    """Number -> trial, of all files with these names."""
    trials: dict[int, Trial] = {}
    for name in names:
        stem = name.removesuffix(FRAMES)
        match = TRIAL.fullmatch(stem.rpartition("/")[2])
        if stem == name or match is None:
            continue
        trial = Trial(int(match[1]), match[2], container, stem)
        if f"{stem}{TABLE}" not in names:
            raise FoveaError(f"{trial.name(TABLE)}: missing beside its {FRAMES}; download it")
        if trial.number in trials:
            raise FoveaError(
                f"{trial.name(FRAMES)}: trial {trial.number} again, as "
                f"{trials[trial.number].stem}; delete one of them"
            )
        trials[trial.number] = trial
    return trials


@contextmanager
def _open(trial: Trial, ending: str) -> Iterator[IO[bytes]]:
    """A trial's table or frames, in the zip or beside it; what goes wrong becomes a FoveaError."""
    try:
        if trial.container.is_dir():
            with Path(trial.name(ending)).open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(trial.container) as archive:
                member = archive.getinfo(f"{trial.stem}{ending}")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"compressed by method {member.compress_type}")
                with archive.open(member) as file:
                    yield file
    except FoveaError:
        raise
    except Exception as error:  # tarfile, zipfile, bz2 and zlib raise a dozen kinds
        raise _damaged(trial, ending, brief(error) or type(error).__name__) from error


def _damaged(trial: Trial, ending: str, why: str) -> FoveaError:
    return FoveaError(
        f"{trial.name(ending)}: damaged, half downloaded or not a recording ({why}); download it "
        f"again, or leave trial {trial.number} out with `trials: […]`"
    )


def _number(trial: Trial, entry: tarfile.TarInfo) -> int:
    """The number of the frame in an archive's member."""
    name, match = quoted(entry.name), FRAME.fullmatch(entry.name)
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise ValueError(f"member {name} is not a regular file")
    if match is None or match[1] != trial.session:
        raise ValueError(f"member {name} is not named like {trial.session}_1.png")
    if entry.size > MAX_FRAME:
        raise ValueError(f"member {name} claims {entry.size} bytes")
    return int(match[2])


class _Bounded(io.RawIOBase):
    """The first MAX_FRAMES bytes of a stream; more are refused."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._room = stream, MAX_FRAMES

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes. Raises ValueError where the stream is too long."""
        data = self._stream.read(min(size, self._room + 1) if size >= 0 else self._room + 1)
        self._room -= len(data)
        if self._room < 0:
            raise ValueError(f"it unpacks to more than {MAX_FRAMES} bytes")
        return data
