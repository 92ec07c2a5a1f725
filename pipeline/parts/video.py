"""One episode as a video and as a sheet, with salient and attended patches (SPIRL, Fig. 6).

A map of the policy's attention, or else the encoder's saliency map, is overlaid in green, in
proportion to the map (Meta-World's arm is red). Salient patches have a red outline, the patches
with 60 % of the policy's attention a transparent yellow fill, and patches that are both an orange
outline. The video is H.264 in MP4 with 4:2:0 colour, which every browser plays; equal frames give
equal bytes.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from datasets.errors import FoveaError
from datasets.files import write_atomic
from datasets.pictures import rgb, spread
from rl.play import EpisodeFrame

RED, ORANGE = (226, 50, 45, 255), (255, 150, 20, 255)
YELLOW = (255, 221, 51, 107)  # transparent
HEAT, GREEN = 0.75, (50, 220, 110)  # the share of green where a map is 1
INK, LIGHT, DIM = (17, 19, 22), (240, 240, 236), (160, 164, 168)
STRIP = 32  # height of the caption above the picture, in pixels; controls cover the lower edge
PICTURES, COLUMNS = 8, 4  # of a sheet
FPS = 15  # one frame an agent step; Atari's 60 Hz over the four repeats of an action


def attended(weights: NDArray[np.float32], mass: float = 0.6) -> NDArray[np.int64]:
    """Indices of the fewest weights (K,) with the share `mass` of their sum, largest first."""
    order = np.argsort(-weights, kind="stable")
    total = np.cumsum(weights[order], dtype=np.float64)
    if not total.size or total[-1] <= 0:
        return order[:0]
    # The tolerance is for rounding, so that 0.4 + 0.2 is 0.6.
    return order[: int(np.searchsorted(total, (mass - 1e-6) * total[-1])) + 1]


def render(
    frame: EpisodeFrame, *, patch: int | None, salient: Sequence[int] | None = None, scale: int = 4
) -> NDArray[np.uint8]:
    """The step as a picture (STRIP + H * scale, W * scale, 3) uint8 with its caption.

    `patch` is the side of the encoder's patches in pixels; None for an encoder without patches. The
    patches `salient` (row-major) are outlined; by default the selected ones, unless all are
    selected.
    """
    height, width = frame.image.shape[:2]
    image = rgb(frame.image)
    if frame.saliency is not None:
        image = _overlay(image, frame.saliency)
    picture = image.repeat(scale, axis=0).repeat(scale, axis=1)
    canvas = Image.new("RGB", (width * scale, STRIP + height * scale), INK)
    canvas.paste(Image.fromarray(picture), (0, STRIP))
    pen = ImageDraw.Draw(canvas, "RGBA")
    if frame.selected is not None and patch is not None:
        if salient is None:
            salient = [] if sees_all(frame, patch) else frame.selected.tolist()
        weights = frame.attention
        focus = set() if weights is None else set(frame.selected[attended(weights)].tolist())
        for place in sorted(focus | set(salient)):
            row, column = divmod(place, width // patch)
            left, top, side = column * patch * scale, STRIP + row * patch * scale, patch * scale
            square = (left, top, left + side - 1, top + side - 1)
            fill = YELLOW if place in focus else None
            outline = None if place not in salient else ORANGE if place in focus else RED
            pen.rectangle(square, fill, outline, 2)
    font = ImageFont.load_default(size=16)
    middle, right = STRIP // 2, canvas.width - 10
    pen.text((10, middle), f"score {frame.score:,.0f}", LIGHT, font, anchor="lm")
    pen.text((right, middle), f"step {frame.step:,}", DIM, font, anchor="rm")
    return np.asarray(canvas)


def _overlay(image: NDArray[np.uint8], saliency: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The image (H, W, 3) overlaid with a map (H, W): where it is 1, a share HEAT of GREEN."""
    share = HEAT * saliency[..., None]
    mixture: NDArray[np.float32] = (1 - share) * image + share * np.array(GREEN, np.float32)
    return mixture.round().astype(np.uint8)


def sees_all(frame: EpisodeFrame, patch: int) -> bool:
    """Whether all patches are selected, so that the selection has no information."""
    height, width = frame.image.shape[:2]
    return frame.selected is not None and len(frame.selected) == height * width // patch**2


def sheet(
    frames: Sequence[EpisodeFrame],
    *,
    patch: int,
    salient: Callable[[NDArray[np.uint8]], Sequence[int]] | None = None,
    scale: int = 3,
) -> Image.Image:
    """Some evenly spread steps of an episode, as one picture.

    `salient` returns the salient patches of an image (H, W, 3), which are outlined if all are
    selected: Fig. 6's row of MAE-All.
    """
    sample = [frames[i] for i in spread(len(frames), PICTURES)]
    pictures = [
        render(
            frame,
            patch=patch,
            salient=salient(frame.image) if salient and sees_all(frame, patch) else None,
            scale=scale,
        )
        for frame in sample
    ]
    height, width = pictures[0].shape[:2]
    gap = 8
    columns, rows = min(COLUMNS, len(pictures)), -(-len(pictures) // COLUMNS)
    whole = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for place, picture in enumerate(pictures):
        row, column = divmod(place, COLUMNS)
        whole.paste(Image.fromarray(picture), (column * (width + gap), row * (height + gap)))
    return whole


def write_video(
    path: Path, frames: Iterable[EpisodeFrame], *, patch: int | None, scale: int = 4
) -> None:
    """Write an episode to `path`, one frame a step.

    Raises FoveaError if there is no frame, or if the picture has an odd side, which 4:2:0 excludes.
    """
    buffer = io.BytesIO()
    count = 0
    with av.open(buffer, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # slices and look-ahead of several threads would change the bytes
        stream.options = {"crf": "26", "preset": "medium", "flags": "+bitexact"}
        for count, frame in enumerate(frames, 1):
            picture = render(frame, patch=patch, scale=scale)
            if count == 1:
                stream.height, stream.width = picture.shape[:2]
                if stream.height % 2 or stream.width % 2:
                    raise FoveaError(f"{path}: a video needs even sides; choose an even scale")
            image = av.VideoFrame.from_ndarray(picture, format="rgb24")
            image.pts, image.time_base = count - 1, Fraction(1, FPS)
            container.mux(stream.encode(image))
        if count:
            container.mux(stream.encode())
    if not count:
        raise FoveaError(f"{path}: the episode has no frames")
    write_atomic(path, buffer.getvalue())
