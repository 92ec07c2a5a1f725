"""Images from files of any origin, in episodes: pictures, npz arrays and videos.

    a folder of .png, .jpg or .jpeg     the images of one episode, in the order of their names
    a folder of such folders            an episode each
    .npz                                arrays, described at NPZ; several episodes where `episode`
                                        or the ends say so
    .mp4                                a video, one episode
    a folder of .npz, or of .mp4        one after the other

Names are ordered as people count: `2.png` is before `10.png`. Hidden files are left out. Nothing is
unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.errors import FoveaError, brief

PICTURES = (".png", ".jpg", ".jpeg")
NPZ = (
    "images (N, H, W, 3), (N, H, W, 1) or (N, H, W) uint8; and, as far as there are any, action "
    "(N,) integers or (N, A) numbers, reward (N,), episode (N,) integers, terminated (N,) and "
    "truncated (N,)"
)
MODES = ("1", "L", "P", "RGB", "RGBA")  # of Pillow: eight bits a channel or fewer


@dataclass(frozen=True)
class Moment:
    """An image, and the step that followed it."""

    image: NDArray[np.uint8]  # (H, W, 3)
    place: str  # the file, and its number in it, as messages name it
    action: int | NDArray[np.float32] = 0
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False


@dataclass(frozen=True)
class Clip:
    """Files that are read one after the other: the images of a folder, or one npz or video."""

    files: tuple[Path, ...]

    @property
    def of_pictures(self) -> bool:
        """Whether each file is one image."""
        return self.files[0].suffix.lower() in PICTURES

    def moments(self) -> Iterator[Moment]:
        """Its images; the last one ends an episode. FoveaError for a missing or damaged file."""
        first = self.files[0]
        if first.suffix.lower() == ".npz":
            yield from _arrays(first)
        elif first.suffix.lower() == ".mp4":
            yield from _until_the_last(_video(first))
        else:
            yield from _until_the_last(Moment(_picture(path), str(path)) for path in self.files)


def find_clips(path: Path) -> list[Clip]:
    """The clips of a file or a folder, as the module's docstring describes it.

    Raises FoveaError where it is missing, empty, or of several kinds, and for pictures of several
    sizes.
    """
    if path.is_file():
        return [Clip((path,))] if path.suffix.lower() in (".npz", ".mp4") else _unknown(path)
    if not path.is_dir():
        raise FoveaError(f"{path}: missing; put your images there, or name another `path`")
    loose = _files(path)
    folders = [one for one in _visible(path) if one.is_dir() and _files(one)]
    kinds = {".png" if one.suffix.lower() in PICTURES else one.suffix.lower() for one in loose}
    if len(kinds) + bool(folders) > 1:
        names = ", ".join([*sorted(kinds), *(f"{one.name}/" for one in folders[:1])])
        raise FoveaError(f"{path}: has files of several kinds ({names}); keep one kind in it")
    if kinds in ({".npz"}, {".mp4"}):
        return [Clip((one,)) for one in loose]
    clips = [Clip(tuple(pictures)) for pictures in map(_files, folders)]
    clips += [Clip(tuple(loose))] if loose else []
    if not clips:
        _unknown(path)
    _check_sizes(clips)
    return clips


def _check_sizes(clips: list[Clip]) -> None:
    """Raise FoveaError naming the first two sizes of pictures, if they differ; none is decoded."""
    first: tuple[Path, tuple[int, int]] | None = None
    for path in (path for clip in clips for path in clip.files):
        if path.suffix.lower() not in PICTURES:
            raise FoveaError(f"{path}: is among pictures; keep other files out of that folder")
        with _opened(path) as image:
            size = image.size
        first = first or (path, size)
        if size != first[1]:
            _two_sizes(str(first[0]), first[1], str(path), size)


def check_size(first: Moment, moment: Moment) -> None:
    """Raise FoveaError, naming both, unless two images have one size."""
    if moment.image.shape != first.image.shape:
        sizes = [one.image.shape[1::-1] for one in (first, moment)]
        _two_sizes(first.place, sizes[0], moment.place, sizes[1])


def _two_sizes(first: str, one: tuple[int, ...], second: str, other: tuple[int, ...]) -> NoReturn:
    raise FoveaError(
        f"{second}: {other[0]}x{other[1]} pixels (width x height), but {first} has "
        f"{one[0]}x{one[1]}; make all images of one size, or an entry for each size"
    )


def _picture(path: Path) -> NDArray[np.uint8]:
    with _opened(path) as image:
        try:
            if image.mode not in MODES:
                raise ValueError(f"mode {image.mode}, must be of eight bits a channel")
            return np.array(image.convert("RGB"), np.uint8)
        except Exception as error:  # Pillow raises a dozen kinds
            _damaged(path, error)


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=["PNG", "JPEG"])
    except FileNotFoundError as error:
        raise FoveaError(f"{path}: missing; restore it, and start again") from error
    except Exception as error:
        _damaged(path, error)


def _video(path: Path) -> Iterator[Moment]:
    try:
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                image = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                yield Moment(image, f"{path}, frame {number}")
    except FileNotFoundError as error:
        raise FoveaError(f"{path}: missing; restore it, and start again") from error
    except (av.FFmpegError, IndexError, ValueError) as error:  # IndexError: no stream of images
        _damaged(path, error)


def _arrays(path: Path) -> Iterator[Moment]:
    arrays = _load(path)
    images, count = arrays["images"], len(arrays["images"])
    images = images[..., None] if images.ndim == 3 else images
    images = np.broadcast_to(images, (*images.shape[:3], 3))
    zeros, episode = np.zeros(count), arrays.get("episode", np.zeros(count, np.int64))
    action = arrays.get("action", np.zeros(count, np.int64))
    reward = arrays.get("reward", zeros)
    terminated = arrays.get("terminated", zeros).astype(np.bool_)
    truncated = arrays.get("truncated", zeros).astype(np.bool_)
    last = np.append(episode[1:] != episode[:-1], True)
    for k in range(count):
        yield Moment(
            images[k],
            f"{path}, image {k}",
            int(action[k]) if action.ndim == 1 else np.asarray(action[k], np.float32),
            float(reward[k]),
            bool(terminated[k]),
            bool(truncated[k] or last[k]) and not terminated[k],
        )


def _load(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an npz, checked."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, NDArray[Any]] = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise FoveaError(f"{path}: missing; restore it, and start again") from error
    except Exception as error:  # of numpy, zipfile and zlib
        _damaged(path, error)
    images = arrays.get("images", np.zeros(0))
    channels = images.shape[3:] in ((), (1,), (3,)) and images.ndim >= 3
    if images.dtype != np.uint8 or not channels or not images.size:
        raise FoveaError(f"{path}: must have {NPZ}; its keys are {', '.join(arrays) or 'none'}")
    for name, kinds, most in (
        ("action", "iu" if arrays.get("action", images[:, 0, 0]).ndim == 1 else "iuf", 2),
        ("reward", "iufb", 1),
        ("episode", "iu", 1),
        ("terminated", "iub", 1),
        ("truncated", "iub", 1),
    ):
        array = arrays.get(name)
        if array is None:
            continue
        odd = array.dtype.kind not in kinds or not 1 <= array.ndim <= most
        if odd or len(array) != len(images) or not np.isfinite(array).all():
            raise FoveaError(
                f"{path}: {name} is {array.dtype} {array.shape} beside {len(images)} images; it "
                f"must have {NPZ}"
            )
    return arrays


def _until_the_last(moments: Iterator[Moment]) -> Iterator[Moment]:
    """Mark the last one as the end of its episode."""
    before: Moment | None = None
    for moment in moments:
        if before:
            yield before
        before = moment
    if before:
        yield Moment(before.image, before.place, truncated=True)


def _files(folder: Path) -> list[Path]:
    endings = (*PICTURES, ".npz", ".mp4")
    return [one for one in _visible(folder) if one.suffix.lower() in endings and one.is_file()]


def _visible(folder: Path) -> list[Path]:
    """What a folder has, in the order in which people count."""
    names = [one for one in folder.iterdir() if not one.name.startswith(".")]
    return sorted(names, key=lambda one: (_counted(one.name), one.name))


def _counted(name: str) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def _unknown(path: Path) -> NoReturn:
    raise FoveaError(
        f"{path}: has no images; name a folder of .png or .jpg, a folder of such folders (one an "
        "episode), an .npz or an .mp4"
    )


def _damaged(path: Path, error: Exception) -> NoReturn:
    raise FoveaError(
        f"{path}: cannot be read as an image, a video or arrays ({brief(error)}); replace or "
        "remove it"
    ) from error
