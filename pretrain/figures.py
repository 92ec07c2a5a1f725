"""Figures of encoders and saliency: heat maps, outlined patches, charts, a captioned grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from datasets.pictures import rgb

if TYPE_CHECKING:
    from torch import Tensor  # takes seconds to import, and stages without torch use this file

Picture = NDArray[np.uint8]  # (H, W, 3)

_RED, _BLUE, _GREEN = (220, 30, 30), (30, 80, 200), (50, 220, 110)
# Dark blue, green, yellow: lightness increases throughout, so the map is readable in grey too.
_HEAT = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]])


def heat_map(values: NDArray[np.floating]) -> Picture:
    """(H, W) in [0, 1] -> picture, dark blue at 0, yellow at 1."""
    at = np.clip(values, 0, 1) * (len(_HEAT) - 1)
    channels = [np.interp(at, np.arange(len(_HEAT)), _HEAT[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def picture(image: Tensor) -> Picture:
    """A frame (C, H, W) uint8, in colour or gray, as a picture."""
    return rgb(image.permute(1, 2, 0).cpu().numpy())


def mark_points(
    frame: Picture,
    points: NDArray[np.float64],
    objects: NDArray[np.float64] | None = None,
    *,
    scale: int = 4,
) -> Picture:
    """`scale` times larger, with a red ring at each of the points (n, 2), x and y in -1 to 1, and a
    green cross at each of the objects.
    """
    height, width = frame.shape[:2]
    image = Image.fromarray(frame).resize((width * scale, height * scale), 0)
    draw, radius = ImageDraw.Draw(image), 2 * scale
    for x, y in (points + 1) / 2 * (width * scale, height * scale):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_RED, width=scale)
    for x, y in () if objects is None else (objects + 1) / 2 * (width * scale, height * scale):
        for slope in (-1, 1):
            ends = (x - radius, y - slope * radius, x + radius, y + slope * radius)
            draw.line(ends, fill=_GREEN, width=scale // 2)
    return np.asarray(image)


def outline(picture: Picture, patches: Sequence[int], patch: int, *, scale: int = 4) -> Picture:
    """`scale` times larger, the border of the given patches (row-major) red, the rest dimmed."""
    rows, columns = picture.shape[0] // patch, picture.shape[1] // patch
    mask = np.zeros(rows * columns, bool)
    mask[list(patches)] = True
    mask = np.pad(mask.reshape(rows, columns), 1)
    light = np.kron(mask[1:-1, 1:-1], np.ones((patch, patch)))[..., None]
    pixels = (picture * np.where(light > 0, 1.0, 0.45)).astype(np.uint8)
    image = Image.fromarray(pixels).resize((picture.shape[1] * scale, picture.shape[0] * scale), 0)
    draw = ImageDraw.Draw(image)
    side = patch * scale
    for row, column in np.argwhere(mask[1:-1, 1:-1]).tolist():
        left, top = column * side, row * side
        right, bottom = left + side - 1, top + side - 1
        borders = {
            (0, 1): (left, top, right, top),
            (2, 1): (left, bottom, right, bottom),
            (1, 0): (left, top, left, bottom),
            (1, 2): (right, top, right, bottom),
        }
        for (down, across), line in borders.items():
            if not mask[row + down, column + across]:
                draw.line(line, fill=(255, 40, 40), width=2)
    return np.asarray(image)


def tint(picture: Picture, patches: Sequence[int], patch: int) -> Picture:
    """The picture with the given patches (row-major) under a transparent red."""
    opacity = np.zeros((picture.shape[0] // patch, picture.shape[1] // patch, 1))
    opacity.reshape(-1)[list(patches)] = 0.5
    share = opacity.repeat(patch, 0).repeat(patch, 1)
    mixture: Picture = (picture * (1 - share) + share * np.array(_RED)).round().astype(np.uint8)
    return mixture


def line_chart(curve: NDArray[np.floating], tail: int, like: Picture, *, scale: int = 4) -> Picture:
    """A curve in [0, 1] in blue, and a dashed red line before its last `tail` steps."""
    height, width = like.shape[0] * scale, like.shape[1] * scale
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    x = np.linspace(0, width - 1, len(curve))
    y = (height - 1) * (1 - np.clip(curve, 0, 1))
    draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=_BLUE, width=3)
    cut = float(x[len(curve) - 1 - tail])
    for top in range(0, height, 16):
        draw.line((cut, top, cut, top + 8), fill=_RED, width=2)
    return np.asarray(image)


def overlay(picture: Picture, values: NDArray[np.floating]) -> Picture:
    """The picture with its brightness scaled, from a third at `values` (H, W) of 0 to one at 1."""
    light = (1 + 2 * np.clip(values, 0, 1)) / 3
    pixels: Picture = (picture * light[..., None]).round().astype(np.uint8)
    return pixels


def bar_chart(
    counts: Sequence[int],
    marks: Mapping[str, float],
    *,
    name: str,
    size: tuple[int, int] = (640, 340),
) -> Picture:
    """A histogram of the values 0, 1, 2, ...; `marks` are red lines, caption -> value; `name` is
    the axis's label.
    """
    width, height = size
    left, top, bottom = 12, 28, height - 44
    image = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    step = (width - 2 * left) / len(counts)
    for value, count in enumerate(counts):
        high = round((bottom - top) * count / max(*counts, 1))
        if high:
            x = left + value * step
            draw.rectangle((x, bottom - high, x + step - 1, bottom - 1), fill=_BLUE)
    draw.line((left, bottom, width - left, bottom), fill="black")
    for value in range(0, len(counts), 20):
        draw.text((left + (value + 0.5) * step, bottom + 3), str(value), "black", font, anchor="ma")
    draw.text((width / 2, bottom + 22), name, "black", font, anchor="ma")
    for caption, at in marks.items():
        x = left + (at + 0.5) * step
        draw.line((x, top - 6, x, bottom), fill=_RED, width=2)
        draw.text((x, top - 8), caption, _RED, font, anchor="mb")
    return np.asarray(image)


def grid(
    groups: Sequence[Mapping[str, Picture]], *, columns: int = 7, cell: int = 192
) -> Image.Image:
    """Captioned pictures, each `cell` pixels wide and high. A group begins a new row, and continues
    in the next row after `columns` pictures.
    """
    gap, line = 8, 20
    rows = [
        list(group.items())[start : start + columns]
        for group in groups
        for start in range(0, len(group), columns)
    ]
    columns = max(len(row) for row in rows)
    size = (gap + columns * (cell + gap), gap + len(rows) * (cell + line + gap))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for r, row in enumerate(rows):
        for c, (caption, picture) in enumerate(row):
            left, top = gap + c * (cell + gap), gap + r * (cell + line + gap)
            shrinks = picture.shape[0] > cell
            how = Image.Resampling.BOX if shrinks else Image.Resampling.NEAREST
            sheet.paste(Image.fromarray(picture).resize((cell, cell), how), (left, top + line))
            draw.text((left, top), caption, fill="black", font=font)
    return sheet
