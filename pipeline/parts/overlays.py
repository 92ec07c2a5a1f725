"""The picture of some frames with their maps over them, as every table of maps has one."""

from __future__ import annotations

from typing import Any

from datasets.pictures import rgb
from datasets.saliency import Indices, Maps
from datasets.shards import FrameSet
from pretrain import figures

PICTURED, COLUMNS = 12, 6


def overlays(frames: FrameSet, indices: Indices, maps: Maps) -> Any:
    """Frames with their maps over them, `COLUMNS` a row (as ViSaRL's Fig. 7)."""
    cells = {
        f"stream {frames.stream[i]}, frame {i}": figures.overlay(
            rgb(frames.images[i]), saliency / 255.0
        )
        for i, saliency in zip(indices.tolist(), maps, strict=True)
    }
    named = list(cells.items())
    return figures.grid([dict(named[n : n + COLUMNS]) for n in range(0, len(named), COLUMNS)])
