"""Atari-HEAD's recordings: both layouts against a loop over frames, and bad input."""

from __future__ import annotations

import bz2
import io
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets import recordings
from datasets.errors import FoveaError
from datasets.gaze_table import parse_table
from datasets.recordings import FOLDER
from datasets.screens import SCREENS
from datasets.shards import FrameSet
from datasets.shards import read_frames as read_shards
from datasets.sources.atari_head import Config, nearest, streams
from tests.datasets.recorded import HEADER, Recorded, png, recorded, tar, write_flat, write_zip

ENV = "atari/Breakout?screen=gray84"
BREAKOUT = (0, 1, 3, 4)  # no-op, fire, right, left


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def collect(env: str, count: int, out: str = "out", **settings: object) -> FrameSet:
    """The frames of a small entry."""
    folder = Path(out)
    folder.mkdir()
    for part in streams(Config(**settings), env, count):  # type: ignore[arg-type]
        part.run(folder, lambda _: None)
    return read_shards(folder)


def points(trial: Recorded, k: int, shift: int = 0, stack: int = 4) -> Counter[tuple[int, int]]:
    """Pixel -> samples on the frames of observation k, one by one, from the definition."""
    counts: Counter[tuple[int, int]] = Counter()
    newest = [4 * n for n in range(k - stack + 1, k + 1)]
    for frame in [f for n in newest for f in (n - 1, n)]:
        if frame < 0 or trial.rows[frame][1] != trial.rows[4 * k][1] or frame - shift < 0:
            continue
        for x, y in trial.gaze[frame - shift]:
            if 0 <= round(x) < 160 and 0 <= round(y) < 210:
                counts[round(x), round(y)] += 1
    return counts


def shown(trial: Recorded, k: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The two frames of observation `k`: none of an earlier episode."""
    first, last = max(4 * k - 1, 0), 4 * k
    same = trial.rows[first][1] == trial.rows[last][1]
    return trial.frames[first if same else last], trial.frames[last]


@pytest.mark.parametrize("write", [write_flat, write_zip])
@pytest.mark.parametrize("shift", [False, True])
def test_both_layouts_give_the_recordings(
    write: Callable[[Path, list[Recorded]], None], shift: bool
) -> None:
    """Images, actions, rewards, episodes and gaze, stream by stream in the trials' order."""
    trials = [recorded(7, 53), recorded(52, 40, "KM_11")]  # the second begins an episode with 20
    write(FOLDER, trials[::-1])
    frames = collect(ENV, 13 + 8, reference_shift=shift)
    assert frames.stream.tolist() == [0] * 13 + [1] * 8
    for stream, trial in enumerate(trials):
        rows = np.flatnonzero(frames.stream == stream)
        for k, row in enumerate(rows):
            third, fourth = shown(trial, k)
            image = SCREENS["gray84"].render(third, fourth)
            np.testing.assert_array_equal(frames.images[row], image)
            assert frames.action[row] == nearest(int(trial.rows[4 * k][5]), BREAKOUT)
            reward = sum(float(fields[4]) for fields in trial.rows[4 * k : 4 * k + 4])
            assert frames.reward[row] == reward
            gaze = frames.info["gaze"][row].tolist()
            assert {(x, y): n for x, y, n in gaze if n} == points(trial, k, int(shift))
        second = [trial.rows[4 * k][1] == "4" for k in range(len(rows))]
        assert frames.episode[rows].tolist() == [int(later) for later in second]
        assert frames.step[rows].tolist() == [*range(second.index(True)), *range(sum(second))]
        assert np.flatnonzero(frames.terminated[rows]).tolist() == [second.index(True) - 1]
    assert not frames.truncated.any()


def test_with_the_shift_the_first_observation_has_no_gaze() -> None:
    write_flat(FOLDER, [recorded(1, 30, seed=1)])
    right, shifted = collect(ENV, 7, "a"), collect(ENV, 7, "b", reference_shift=True)
    assert right.info["gaze"][0, :, 2].sum() > 0 == shifted.info["gaze"][0, :, 2].sum()
    assert not np.array_equal(right.info["gaze"][1:], shifted.info["gaze"][1:])


def test_a_net_that_sees_one_observation_has_the_gaze_on_two_frames() -> None:
    trial = recorded(1, 30)
    write_flat(FOLDER, [trial])
    frames = collect(ENV, 7, stack=1)
    for k in range(7):
        gaze = frames.info["gaze"][k].tolist()
        assert {(x, y): n for x, y, n in gaze if n} == points(trial, k, stack=1)


@pytest.mark.parametrize("screen", SCREENS)
def test_the_images_are_of_the_entrys_screen(screen: str) -> None:
    trial = recorded(1, 10)
    write_zip(FOLDER, [trial])
    frames = collect(f"atari/Breakout?screen={screen}", 3)
    for k in range(3):
        third, fourth = shown(trial, k)
        np.testing.assert_array_equal(frames.images[k], SCREENS[screen].render(third, fourth))


@pytest.mark.parametrize("count", range(1, 11))
def test_an_observation_needs_a_frame_after_it(count: int) -> None:
    """ceil((N - 1) / 4), as the released code has of N frames."""
    write_flat(FOLDER, [recorded(1, count)])
    steps = -((1 - count) // 4)
    if steps:
        assert len(collect(ENV, steps)) == steps
    with pytest.raises(FoveaError, match=f"count: {steps + 1}, but .* {steps} observations"):
        streams(Config(), ENV, steps + 1)


def test_the_games_names_are_matched_in_all_spellings() -> None:
    write_flat(FOLDER / "a", [recorded(1, 10)], "Mspacman")
    write_zip(FOLDER / "b", [recorded(1, 10)], "ms_pacman")
    for layout in "ab":
        (trial,) = recordings.find_trials("MsPacman", folder=FOLDER / layout)
        assert trial.number == 1


def test_chosen_trials_only() -> None:
    trials = [recorded(1, 10), recorded(2, 10), recorded(3, 10)]
    write_flat(FOLDER, trials)
    Path(FOLDER, f"{trials[1].stem}.tar.bz2").unlink()
    assert [part.trial.number for part in streams(Config(trials=(3, 1)), ENV, 6)] == [1, 3]
    for numbers, message in (
        ((2,), r"2_\*\.tar\.bz2: missing, .* trial 2 of Breakout; download it, or list"),
        ((99,), "trials: 99 is not one of Breakout, which has 1, 2, 3"),
    ):
        with pytest.raises(FoveaError, match=message):
            streams(Config(trials=numbers), ENV, 1)


def test_an_action_beyond_the_games_own_presses_most_of_the_same() -> None:
    """Breakout has no-op, fire, right, left; Ms. Pacman has no fire."""
    assert [nearest(action, BREAKOUT) for action in range(18)] == [
        0, 1, 0, 2, 3, 0, 2, 3, 2, 3, 1, 2, 3, 1, 2, 3, 2, 3,
    ]  # fmt: skip
    pacman = (0, 2, 3, 4, 5, 6, 7, 8, 9)
    assert [pacman[nearest(action, pacman)] for action in range(10, 18)] == list(range(2, 10))
    assert [nearest(action, tuple(range(18))) for action in range(18)] == list(range(18))


ROWS = {
    "nulls": "S_1_{n},null,null,null,null,null,null",
    "half a pair is null": "S_1_{n},0,0,50,0,0,null,20.5",
    "not finite": "S_1_{n},0,0,50,0,0,nan,3,inf,4,1e999,5",
    "nothing": "S_1_{n},0,0,50,0,0,",
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_missing_values(row: str) -> None:
    """No gaze, no reward, no-op; the episode is that of the row before."""
    first = "S_1_1,5,0,50,2,3,10.00,20.00"
    table = parse_table("\n".join([HEADER, first, row.format(n=2), row.format(n=4)]), "S_1")
    assert len(table) == 4 and [len(gaze) for gaze in table.gaze] == [1, 0, 0, 0]
    assert table.reward.tolist() == [2, 0, 0, 0] and table.action.tolist() == [3, 0, 0, 0]
    if "null,null" in row:
        assert table.episode.tolist() == [5, 5, 5, 5]


BAD_ROWS = {
    "S_1_1,0,0,50,0": "line 2 has 5 of 7 columns",
    "": "line 2 has 1 of 7 columns",
    "T_1_1,0,0,50,0,0,1,2": "line 2: 'T_1_1' is a frame of another recording",
    "S_1_x,0,0,50,0,0,1,2": "line 2: 'S_1_x' has no number",
    "S_1_0,0,0,50,0,0,1,2": "line 2: 'S_1_0' has no number",
    "S_1_99999999999,0,0,50,0,0,1,2": "line 2: 'S_1_99999999999' has no number",
    "S_1_1,0,0,50,0,18,1,2": "frame 1: action 18, must be 0 to 17",
    "S_1_1,0,0,50,often,0,1,2": "frame 1: 'often' is not a number",
    "S_1_1,nan,0,50,0,0,1,2": "frame 1: 'nan' is not a number",
    "S_1_1,0,0,50,0,0,1,2,3": "frame 1: gaze has 3 values, which are not pairs",
    "S_1_1,0,0,50,0,0,1,x": "frame 1: gaze is not of numbers",
    "S_1_2,0,0,5,0,0,1,2\nS_1_1,0,0,5,0,0,1,2": "line 3: frame 1 is out of order",
}


@pytest.mark.parametrize(("row", "message"), BAD_ROWS.items(), ids=BAD_ROWS.values())
def test_a_damaged_row_is_refused_with_its_place(row: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_table(f"{HEADER}\n{row}\n", "S_1")


def test_a_table_of_other_columns_is_refused() -> None:
    for text in ("", "frame_id,action\nS_1_1,0\n", HEADER.replace("gaze_positions", "gaze")):
        with pytest.raises(ValueError, match="its columns are"):
            parse_table(text, "S_1")
    with pytest.raises(ValueError, match="it has no rows"):
        parse_table(HEADER, "S_1")


def refused(message: str, env: str = ENV) -> None:
    """Collecting two observations is refused in one line, which says what to do."""
    with pytest.raises(FoveaError, match=message) as error:
        for part in streams(Config(), env, 2):
            Path("out").mkdir(exist_ok=True)
            part.run(Path("out"), lambda _: None)
    assert len(str(error.value).splitlines()) == 1
    assert re.search("download|name |delete|lower|put", str(error.value))


def test_without_recordings_or_of_another_game_or_suite() -> None:
    refused(r"recordings/atari_head/meta_data\.csv: missing; put Atari-HEAD's files")
    write_flat(FOLDER, [recorded(1, 10)])
    refused("has no trial of Pong, but those of breakout, enduro", "atari/Pong")
    refused("metaworld/reach is not of Atari; name a game", "metaworld/reach")
    (FOLDER / "meta_data.csv").write_text("Spiel,Nummer\nBreakout,1\n")
    refused("not Atari-HEAD's, which has the columns Game and TrialNumber")
    (FOLDER / "meta_data.csv").write_text("Game,TrialNumber\nBreakout,first\n")
    refused("not Atari-HEAD's, which has the columns")


def test_a_zip_of_another_game() -> None:
    write_zip(FOLDER, [recorded(1, 10)])
    (FOLDER / "meta_data.csv").write_text("GameName,trial_id\nenduro,1\nbreakout,2\n")
    refused(r"breakout\.zip/.*: trial 1 is of enduro in meta_data\.csv, not of Breakout")
    refused(r"has no zip of Enduro, but breakout\.zip", "atari/Enduro")
    with zipfile.ZipFile(FOLDER / "breakout.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    refused(r"breakout\.zip: has no \*\.tar\.bz2 in it")


def test_a_recording_under_another_ones_name() -> None:
    trial, other = recorded(1, 10), recorded(1, 10, "AB_2")
    write_flat(FOLDER, [trial])
    (FOLDER / f"{trial.stem}.tar.bz2").write_bytes(other.archive())
    refused(r"1_RZ_.*\.tar\.bz2: .*member 'run/AB_2_1\.png' is not named like RZ_2394668_1\.png")
    (FOLDER / f"{trial.stem}.txt").write_bytes(other.table())
    refused(r"1_RZ_.*\.txt: .*line 2: 'AB_2_1' is a frame of another recording")


@pytest.mark.parametrize("ending", [".txt", ".tar.bz2"])
def test_a_missing_file(ending: str) -> None:
    trial = recorded(1, 10)
    write_flat(FOLDER, [trial])
    (FOLDER / f"{trial.stem}{ending}").unlink()
    refused(r"1_.*: missing")


def test_half_downloaded_files() -> None:
    trial = recorded(1, 30)
    write_flat(FOLDER, [trial])
    path = FOLDER / f"{trial.stem}.tar.bz2"
    whole = path.read_bytes()
    for part in (b"", whole[:100], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(part)
        refused(r"1_RZ_.*\.tar\.bz2: damaged, half downloaded")
    path.write_bytes(whole)
    table = FOLDER / f"{trial.stem}.txt"
    table.write_bytes(trial.table()[: len(trial.table()) // 2].rpartition(b"\n")[0])
    refused(r"frame \d+ is there twice, or has no row in the table")
    table.write_bytes(b"\xff\xfe")
    refused(r"\.txt: damaged")


def test_a_half_downloaded_zip() -> None:
    write_zip(FOLDER, [recorded(1, 10)])
    path = FOLDER / "breakout.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(r"breakout\.zip: damaged or half downloaded")
    at = whole.index(b"BZh") + 200
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    refused(r"breakout\.zip/breakout/1_RZ_.*\.tar\.bz2: damaged")


def hostile(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    """An archive with one member, which claims a size."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.size, entry.linkname = kind, size, "/etc/passwd"
    return bz2.compress(entry.tobuf(tarfile.GNU_FORMAT) + bytes(20_480))


HOSTILE = {
    "a link": (hostile("run/RZ_2394668_1.png", tarfile.SYMTYPE), "is not a regular file"),
    "a device": (hostile("run/RZ_2394668_1.png", tarfile.CHRTYPE), "is not a regular file"),
    "upwards": (hostile("../../RZ_2394668_1.png"), "is not named like"),
    "absolute": (hostile("/tmp/RZ_2394668_1.png"), "is not named like"),
    "large": (hostile("run/RZ_2394668_1.png", size=1 << 40), "claims 1099511627776 bytes"),
    "a long name": (hostile("x", b"L", 1 << 40), "damaged"),
    "no image": (tar({f"RZ_2394668_{n}.png": b"x" for n in range(1, 11)}), "frame 1: "),
    "a gap": (tar({"RZ_2394668_1.png": b""}), "2 frames are missing, such as number 4"),
    "surplus": (tar({"RZ_2394668_12.png": b""}), "frame 12 is there twice, or has no row"),
    "no archive": (b"BZh91AY", "damaged"),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused(data: bytes, message: str) -> None:
    trial = recorded(1, 10)
    write_flat(FOLDER, [trial])
    (FOLDER / f"{trial.stem}.tar.bz2").write_bytes(data)
    refused(rf"1_RZ_.*\.tar\.bz2: .*{re.escape(message)}")
    assert {path.name for path in Path().iterdir()} <= {"recordings", "out"}


def test_an_archive_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = recorded(1, 10)
    write_flat(FOLDER, [trial])
    monkeypatch.setattr(recordings, "MAX_FRAMES", 20_000)
    path = FOLDER / f"{trial.stem}.tar.bz2"
    for data in (path.read_bytes(), path.read_bytes() + bz2.compress(bytes(50_000))):
        path.write_bytes(data)
        refused("unpacks to more than 20000 bytes")
    monkeypatch.setattr(recordings, "MAX_TABLE", 100)
    refused(r"\.txt: .*more than 100 bytes")


def test_frames_of_another_size_are_refused_before_they_are_decoded() -> None:
    trial = recorded(1, 10)
    write_flat(FOLDER, [trial])
    images = {f"RZ_2394668_{n}.png": png(f) for n, f in enumerate(trial.frames, 1)}
    images["RZ_2394668_5.png"] = png(np.zeros((210, 161, 3), np.uint8))
    (FOLDER / f"{trial.stem}.tar.bz2").write_bytes(tar(images))
    refused("frame 5: 161x210 pixels, not 160x210")


def test_a_zip_by_an_unknown_method_or_with_a_trial_twice() -> None:
    trial = recorded(1, 10)
    write_zip(FOLDER, [trial])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        for ending, data in ((".txt", trial.table()), (".tar.bz2", trial.archive())):
            archive.writestr(f"breakout/{trial.stem}{ending}", data)
    (FOLDER / "breakout.zip").write_bytes(buffer.getvalue())
    refused("compressed by method 14")
    with zipfile.ZipFile(FOLDER / "breakout.zip", "w") as archive:
        for place in ("a", "b"):
            archive.writestr(f"{place}/{trial.stem}.txt", b"")
            archive.writestr(f"{place}/{trial.stem}.tar.bz2", b"")
    refused("trial 1 again, as a/1_RZ")


def test_gaze_on_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    write_flat(FOLDER, [recorded(1, 20)])
    monkeypatch.setattr("datasets.sources.atari_head.MOST", 2)
    refused(r"1_RZ_.*\.txt: gaze is on \d+ pixels in observation \d, more than 2; lower `stack`")
