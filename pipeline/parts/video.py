"""One episode as a video and as a sheet: what is salient, and what the policy attends to (SPIRL,
Fig. 6).

Where the encoder makes a saliency map of its own, it is laid over the picture in green, as strong
as the map (Meta-World's arm is red). Salient patches get a red outline, the patches that carry 60 %
of the policy's attention a transparent yellow fill, and a patch that is both an orange outline. The
film is H.264 in MP4 with 4:2:0 colour, which every browser plays; equal frames give equal bytes.
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
HEAT, GREEN = 0.75, (50, 220, 110)  # where a map is 1 that share of the picture is green
INK, LIGHT, DIM = (17, 19, 22), (240, 240, 236), (160, 164, 168)
STRIP = 32  # height of the caption over the picture, in pixels; a player's controls cover the foot
SHOWN, COLUMNS = 8, 4  # pictures of a sheet
FPS = 15  # one frame an agent step; Atari's 60 Hz over the four repeats of an action


def attended(weights: NDArray[np.float32], mass: float = 0.6) -> NDArray[np.int64]:
    """Positions of the fewest weights (K,) that hold `mass` of their sum, heaviest first."""
    order = np.argsort(-weights, kind="stable")
    held = np.cumsum(weights[order], dtype=np.float64)
    if not held.size or held[-1] <= 0:
        return order[:0]
    # The tolerance keeps 0.4 + 0.2 from missing 0.6 by one rounding.
    return order[: int(np.searchsorted(held, (mass - 1e-6) * held[-1])) + 1]


def draw(
    frame: EpisodeFrame, *, patch: int | None, salient: Sequence[int] | None = None, scale: int = 4
) -> NDArray[np.uint8]:
    """The step as a picture (STRIP + H * scale, W * scale, 3) uint8 with its caption.

    `patch` is the side of the encoder's patches in pixels, None for an encoder that has none.
    `salient` (row-major) are outlined; left out, it is the selected ones, or none where those are
    all there are.
    """
    height, width = frame.image.shape[:2]
    image = rgb(frame.image)
    if frame.saliency is not None:
        image = _heated(image, frame.saliency)
    picture = image.repeat(scale, axis=0).repeat(scale, axis=1)
    canvas = Image.new("RGB", (width * scale, STRIP + height * scale), INK)
    canvas.paste(Image.fromarray(picture), (0, STRIP))
    pen = ImageDraw.Draw(canvas, "RGBA")
    if frame.selected is not None and patch is not None:
        if salient is None:
            salient = [] if sees_all(frame, patch) else frame.selected.tolist()
        weights = frame.attention
        looked = set() if weights is None else set(frame.selected[attended(weights)].tolist())
        for place in sorted(looked | set(salient)):
            row, column = divmod(place, width // patch)
            left, top, side = column * patch * scale, STRIP + row * patch * scale, patch * scale
            square = (left, top, left + side - 1, top + side - 1)
            fill = YELLOW if place in looked else None
            outline = None if place not in salient else ORANGE if place in looked else RED
            pen.rectangle(square, fill, outline, 2)
    font = ImageFont.load_default(size=16)
    middle, right = STRIP // 2, canvas.width - 10
    pen.text((10, middle), f"score {frame.score:,.0f}", LIGHT, font, anchor="lm")
    pen.text((right, middle), f"step {frame.step:,}", DIM, font, anchor="rm")
    return np.asarray(canvas)


def _heated(image: NDArray[np.uint8], saliency: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The image (H, W, 3) with a map (H, W) over it: up to HEAT of it is GREEN."""
    share = HEAT * saliency[..., None]
    mixed: NDArray[np.float32] = (1 - share) * image + share * np.array(GREEN, np.float32)
    return mixed.round().astype(np.uint8)


def sees_all(frame: EpisodeFrame, patch: int) -> bool:
    """Whether every patch was selected, so that being selected says nothing."""
    height, width = frame.image.shape[:2]
    return frame.selected is not None and len(frame.selected) == height * width // patch**2


def sheet(
    frames: Sequence[EpisodeFrame],
    *,
    patch: int,
    salient: Callable[[NDArray[np.uint8]], Sequence[int]] | None = None,
    scale: int = 3,
) -> Image.Image:
    """Some steps of an episode, evenly spread, as one picture.

    `salient` finds the patches that are salient in an image (H, W, 3), to be outlined where all
    were selected: Fig. 6's row of MAE-All.
    """
    shown = [frames[i] for i in spread(len(frames), SHOWN)]
    pictures = [
        draw(
            frame,
            patch=patch,
            salient=salient(frame.image) if salient and sees_all(frame, patch) else None,
            scale=scale,
        )
        for frame in shown
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

    Raises FoveaError when there is no frame, or when the picture has an odd side (4:2:0 has none).
    """
    buffer = io.BytesIO()
    count = 0
    with av.open(buffer, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # slices and look-ahead of several threads would change the bytes
        stream.options = {"crf": "26", "preset": "medium", "flags": "+bitexact"}
        for count, frame in enumerate(frames, 1):
            picture = draw(frame, patch=patch, scale=scale)
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
