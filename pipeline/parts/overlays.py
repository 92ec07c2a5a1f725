"""The picture of some frames overlaid with their maps, for every artifact with maps."""

from __future__ import annotations

from typing import Any

from datasets.pictures import rgb
from datasets.saliency import Indices, Maps
from datasets.shards import FrameSet
from pretrain import figures

PICTURES, COLUMNS = 12, 6


def overlays(frames: FrameSet, indices: Indices, maps: Maps) -> Any:
    """Frames overlaid with their maps, `COLUMNS` a row (as in ViSaRL's Fig. 7)."""
    cells = {
        f"stream {frames.stream[i]}, frame {i}": figures.overlay(
            rgb(frames.images[i]), saliency / 255.0
        )
        for i, saliency in zip(indices.tolist(), maps, strict=True)
    }
    pairs = list(cells.items())
    return figures.grid([dict(pairs[n : n + COLUMNS]) for n in range(0, len(pairs), COLUMNS)])
