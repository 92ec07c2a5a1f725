"""Small recordings in Atari-HEAD's two published layouts, and what is in them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEADER = "frame_id,episode_id,score,duration(ms),unclipped_reward,action,gaze_positions"


@dataclass
class Recorded:
    """A trial: frames (N, 210, 160, 3), and a row for each."""

    number: int
    session: str
    frames: NDArray[np.uint8]
    rows: list[list[str]]  # the fields of the table
    gaze: list[list[tuple[float, float]]] = field(default_factory=list)

    @property
    def stem(self) -> str:
        return f"{self.number}_{self.session}_Aug-10-14-52-42"

    def table(self) -> bytes:
        return "\n".join([HEADER, *(",".join(row) for row in self.rows), ""]).encode()

    def archive(self) -> bytes:
        members = {f"{self.session}_{n}.png": png(f) for n, f in enumerate(self.frames, 1)}
        return tar(members)


def recorded(number: int, count: int, session: str = "RZ_2394668", seed: int = 0) -> Recorded:
    """A trial of two episodes; its pixels and gaze are random, a part of it outside or missing."""
    rng = np.random.default_rng((number, seed))
    frames = rng.integers(0, 256, (count, 1, 1, 3), np.uint8).repeat(210, 1).repeat(160, 2)
    frames[:, 100:110, 50:60] = 255 - frames[:, 100:110, 50:60]
    rows, gaze = [], []
    for i in range(count):
        samples = [
            (round(float(x), 2), round(float(y), 2))
            for x, y in rng.uniform((-5, -5), (165, 215), (rng.integers(0, 4), 2))
        ]
        samples += samples[:1]  # one pixel twice
        fields = [str(v) for pair in samples for v in pair] or ["null"]
        rows.append(
            [f"{session}_{i + 1}", str(3 + (i >= count // 2)), str(7 * i), "50", str(i % 3),
             str(rng.integers(18)), *fields]
        )  # fmt: skip
        gaze.append(samples)
    return Recorded(number, session, frames, rows, gaze)


def write_flat(folder: Path, trials: list[Recorded], game: str = "Breakout") -> None:
    """Versions 1 and 2: all in one folder, with a trial of another game."""
    folder.mkdir(parents=True, exist_ok=True)
    other = recorded(99, 5, "AB_1")
    for trial in [*trials, other]:
        (folder / f"{trial.stem}.txt").write_bytes(trial.table())
        (folder / f"{trial.stem}.tar.bz2").write_bytes(trial.archive())
    lines = [f"{game},{t.number}.0,{len(t.frames)},x" for t in trials]
    meta = ["Game,TrialNumber,NumberOfFrames,Subject", *lines, "Enduro,99,5,x", ",,,"]
    (folder / "meta_data.csv").write_text("\n".join(meta) + "\n")


def write_zip(folder: Path, trials: list[Recorded], game: str = "breakout") -> None:
    """Version 4: a zip for each game."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{game}.zip", "w") as archive:
        for trial in [*trials, recorded(98, 5, "HS_1")]:
            place = f"{game}/highscore" if trial.number == 98 else game
            archive.writestr(f"{place}/{trial.stem}.txt", trial.table())
            archive.writestr(f"{place}/{trial.stem}.tar.bz2", trial.archive())
    lines = [f"{game},{t.number},x,{len(t.frames)}" for t in trials]
    meta = ["GameName,trial_id,subject_id,total_frame", *lines, "enduro,99,x,5"]
    (folder / "meta_data.csv").write_text("\n".join(meta) + "\n")


def png(frame: NDArray[np.uint8]) -> bytes:
    """A frame as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG")
    return buffer.getvalue()


def tar(members: dict[str, bytes], folder: str = "run") -> bytes:
    """A `.tar.bz2` of files in a folder, whose order is not that of their numbers."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as archive:
        entry = tarfile.TarInfo(folder)
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
        for name, data in sorted(members.items()):
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
