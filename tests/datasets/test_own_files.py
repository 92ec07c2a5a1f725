"""Frames from a user's files: pictures, arrays and videos."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from datasets import envs
from datasets.errors import FoveaError
from datasets.shards import FrameSet, read_frames
from datasets.sources.files import Config, streams

ENV = "files/images?height=8&width=12"
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recordings/own").mkdir(parents=True)


def noise(*shape: int) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def save(path: str, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    file = Path("recordings/own", path)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)
    return image


def collect(count: int, path: str = "recordings/own", env: str = ENV) -> FrameSet:
    folder = Path("out")
    folder.mkdir(exist_ok=True)
    for part in streams(Config(path), env, count):
        part.run(folder, lambda _: None)
    return read_frames(folder)


def video(path: Path, images: NDArray[np.uint8]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = images.shape[1:3]
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def test_subfolders_are_episodes_in_the_order_in_which_people_count() -> None:
    names = ("a/9.png", "a/10.png", "b2/x.PNG", "b2/y.png", "b10/z.png")
    images = [save(name, noise(8, 12, 3)) for name in names]
    Path("recordings/own/.hidden.png").write_bytes(b"")
    frames = collect(5)
    assert np.array_equal(frames.images, images)
    assert frames.episode.tolist() == [0, 0, 1, 1, 2] and frames.step.tolist() == [0, 1, 0, 1, 0]
    assert frames.truncated.tolist() == [False, True, False, True, True]
    assert not frames.terminated.any() and not frames.action.any() and not frames.reward.any()
    assert frames.info["number"].tolist() == [0, 1, 2, 3, 4]


def test_images_are_those_of_the_environment() -> None:
    """Resized by area, and gray by luma where the environment's are."""
    image = save("0.png", noise(168, 252, 3))
    small = cv2.resize(image, (12, 8), interpolation=cv2.INTER_AREA)
    assert np.array_equal(collect(1).images[0], small)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    expected = cv2.resize(gray, (84, 84), interpolation=cv2.INTER_AREA)[..., None]
    Path("out/000-00000.tar").unlink()
    assert np.array_equal(collect(1, env="atari/Pong?screen=gray84").images[0], expected)


def test_jpeg_and_other_modes_are_colour() -> None:
    gray = noise(8, 12)
    save("0.png", gray)
    save("1.png", np.dstack([noise(8, 12, 3), noise(8, 12)]))
    save("2.jpg", np.full((8, 12, 3), 77, np.uint8))
    frames = collect(3)
    assert np.array_equal(frames.images[0], np.repeat(gray[..., None], 3, 2))
    assert np.abs(frames.images[2].astype(int) - 77).max() <= 1


def test_an_npz_has_episodes_actions_and_rewards() -> None:
    images, action = noise(6, 8, 12, 3), RNG.normal(size=(6, 2))
    arrays: dict[str, Any] = {"images": images, "action": action, "reward": np.arange(6.0)}
    ends = np.array([False, True, False, False, False, False])
    np.savez("recordings/own/0.npz", **arrays, episode=[7, 7, 7, 7, 9, 9], terminated=ends)
    frames = collect(6)
    assert np.array_equal(frames.images, images)
    assert np.array_equal(frames.action, action.astype(np.float32))
    assert frames.reward.tolist() == [0, 1, 2, 3, 4, 5]
    assert frames.episode.tolist() == [0, 0, 1, 1, 2, 2]
    assert frames.step.tolist() == [0, 1, 0, 1, 0, 1]
    assert frames.terminated.tolist() == ends.tolist()
    assert frames.truncated.tolist() == [False, False, False, True, False, True]


@pytest.mark.parametrize("shape", [(3, 8, 12), (3, 8, 12, 1)])
def test_an_npz_of_gray_images_alone(shape: tuple[int, ...]) -> None:
    images = noise(*shape)
    np.savez_compressed("recordings/own.npz", images=images)
    frames = collect(3, "recordings/own.npz")
    assert np.array_equal(frames.images[..., 1], images.reshape(3, 8, 12))
    assert frames.truncated.tolist() == [False, False, True] and frames.action.dtype == np.int64


def test_videos_are_episodes() -> None:
    for name, levels in (("a.mp4", (40, 80, 120)), ("b.mp4", (200, 160))):
        images = [np.full((16, 32, 3), level, np.uint8) for level in levels]
        video(Path("recordings/own", name), np.stack(images))
    frames = collect(5)
    assert np.abs(frames.images.mean((1, 2, 3)) - [40, 80, 120, 200, 160]).max() < 4
    assert frames.episode.tolist() == [0, 0, 0, 1, 1]


def test_a_part_of_the_frames_goes_on_where_it_was_interrupted() -> None:
    for number in range(1030):
        save(f"{number}.png", np.full((8, 12, 3), number % 256, np.uint8))
    whole = collect(1027)
    shards = {path: path.read_bytes() for path in Path("out").glob("*.tar")}
    assert len(shards) == 2 and len(whole) == 1027
    Path("out/000-00001.tar").unlink()
    collect(1027)
    assert {path: path.read_bytes() for path in shards} == shards


def several_sizes() -> None:
    save("a/0.png", noise(8, 12, 3))
    save("a/1.png", noise(8, 12, 3))
    save("b/0.png", noise(9, 10, 3))
    save("b/1.png", noise(7, 7, 3))


def sizes_of_arrays() -> None:
    np.savez("recordings/own/0.npz", images=noise(2, 8, 12))
    np.savez("recordings/own/1.npz", images=noise(2, 9, 10))


def cut_png() -> None:
    for name in ("0.png", "2.png"):
        save(name, noise(8, 12, 3))
    data = Path("recordings/own/0.png").read_bytes()
    Path("recordings/own/1.png").write_bytes(data[: len(data) // 2])


def cut_video() -> None:
    video(Path("recordings/own/0.mp4"), noise(5, 16, 32, 3))
    data = Path("recordings/own/0.mp4").read_bytes()
    Path("recordings/own/0.mp4").write_bytes(data[: len(data) // 2])


def deep_png() -> None:
    for name in ("0", "1", "2"):
        Image.fromarray(noise(8, 12).astype(np.uint16)).save(f"recordings/own/{name}.png")


def no_png() -> None:
    Path("recordings/own/0.png").write_bytes(b"GIF89a")


def several_kinds() -> None:
    save("0.png", noise(8, 12, 3))
    np.savez("recordings/own/0.npz", images=noise(2, 8, 12))


def objects() -> None:
    np.savez("recordings/own/0.npz", images=np.array([None]))


def cut_npz() -> None:
    np.savez_compressed("recordings/own/0.npz", images=noise(2, 8, 12))
    data = Path("recordings/own/0.npz").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.infolist()[0].header_offset + 60
    Path("recordings/own/0.npz").write_bytes(data[:start] + bytes(20) + data[start + 20 :])


def npz(**arrays: Any) -> Callable[[], None]:
    return lambda: np.savez("recordings/own/0.npz", **arrays)


BAD = [
    (several_sizes, r"own/b/0.png: 10x9 pixels .*but .*own/a/0.png has 12x8"),
    (
        sizes_of_arrays,
        r"own/1.npz, image 0: 10x9 pixels .*but .*own/0.npz, image 0 has 12x8",
    ),
    (cut_png, r"own/1.png: cannot be read"),
    (cut_video, r"own/0.mp4: cannot be read"),
    (deep_png, r"own/0.png: cannot be read.*mode I;16, must be of eight bits"),
    (no_png, r"own/0.png: cannot be read"),
    (several_kinds, r"recordings/own: has files of several kinds \(.npz, .png\)"),
    (objects, r"own/0.npz: cannot be read"),
    (cut_npz, r"own/0.npz: cannot be read"),
    (lambda: None, r"recordings/own: has no images; name a folder"),
    (npz(frames=[1]), r"own/0.npz: must have images \(N, H, W, 3\).*keys are frames"),
    (npz(images=np.zeros((2, 8, 12, 3))), r"own/0.npz: must have images"),
    (npz(images=np.uint8(3)), r"own/0.npz: must have images"),
    (npz(images=noise(2, 8, 12, 4)), r"own/0.npz: must have images"),
    (npz(images=noise(2, 8, 12), reward=[1.0]), r"0.npz: reward is float64 \(1,\) beside 2"),
    (npz(images=noise(2, 8, 12), action=[0.5, 1]), r"0.npz: action is float64 \(2,\) beside 2"),
    (npz(images=noise(2, 8, 12), reward=[1, np.nan]), r"0.npz: reward is float64 \(2,\)"),
    (npz(images=noise(1, 8, 12)), r"count: 3, but .*own has 1 images; lower it"),
    (
        lambda: save("0.png", noise(8, 12, 3)),
        r"count: 3, but .*own has 1 images; lower it",
    ),
]


@pytest.mark.parametrize(("write", "message"), BAD)
def test_bad_input_is_named(write: Callable[[], object], message: str) -> None:
    write()
    with pytest.raises(FoveaError, match=message):
        collect(3)


def test_missing_files_are_named() -> None:
    with pytest.raises(FoveaError, match="nowhere: missing; put your images there"):
        streams(Config("recordings/nowhere"), ENV, 1)
    for number in range(3):
        save(f"{number}.png", noise(8, 12, 3))
    (part,) = streams(Config("recordings/own"), ENV, 3)
    Path("recordings/own/1.png").unlink()
    with pytest.raises(FoveaError, match=r"recordings/own/1.png: missing; restore it"):
        list(part.frames(0))


@pytest.mark.parametrize("path", ["own", "/recordings/own", "recordings/../own", "recordings"])
def test_files_are_in_one_place(path: str) -> None:
    with pytest.raises(ValueError, match=r"path: .*must be in the folder recordings"):
        Config(path)


def test_images_of_no_environment_cannot_be_played() -> None:
    assert envs.image_shape(ENV) == (3, 8, 12) and envs.actions(ENV) == "none"
    with pytest.raises(FoveaError, match="cannot be played; name it with `source: files` only"):
        envs.single(ENV, seed=0, index=0)
    with pytest.raises(FoveaError, match="width: '0', must be a number of pixels"):
        envs.check("files/images?width=0")
