"""Controls of an exam: trivial maps and keypoints, which every source is compared with.

They depend on the annotated frames only, so they are the same for every source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.annotation import simulated
from datasets.annotation.maps import heat_map
from pipeline.parts.labelled import Labelled
from pipeline.parts.maps import FloatMaps
from pipeline.parts.scores import CENTRE
from pretrain.metrics.keypoints import (
    CELLS,
    Points,
    central_cells,
    keypoints,
    random_cells,
    uniform_grid,
)
from pretrain.modules.maps import centre_prior, unit_range


def control_maps(labelled: Labelled, seed: int = 0) -> dict[str, FloatMaps]:
    """The all-zero map, the centre prior, the uniform map, random cells, and motion from the
    previous frame if any of the frames has one.
    """
    count, height, width = shape = labelled.maps.shape
    sides = zip(shape[1:], CELLS, strict=True)
    rows, columns = (np.arange(side) * cells // side for side, cells in sides)
    cells = np.random.default_rng(seed).random((count, *CELLS), np.float32)
    maps: dict[str, FloatMaps] = {
        "zero": np.zeros(shape, np.float32),
        "centre": np.broadcast_to(centre_prior(height, width, CENTRE).numpy(), shape),
        "uniform": np.full(shape, 0.5, np.float32),
        "random": cells[:, rows][:, :, columns],
    }
    moved = motion(labelled)
    return maps if moved is None else maps | {"motion": moved}


def motion(labelled: Labelled) -> FloatMaps | None:
    """Absolute difference from the previous frame, scaled to 0..1 frame by frame; zero for the
    first frame of an episode. None if no frame has a previous one.
    """
    frames, at = labelled.frames, labelled.indices
    before = np.maximum(at - 1, 0)
    follows = (
        (frames.stream[before] == frames.stream[at])
        & (frames.episode[before] == frames.episode[at])
        & (frames.step[before] + 1 == frames.step[at])
    )
    if not follows.any():
        return None
    now, last = (frames.images[part[follows]].astype(np.int16) for part in (at, before))
    difference = torch.from_numpy(np.abs(now - last).mean(-1, dtype=np.float32))
    maps = np.zeros(labelled.maps.shape, np.float32)
    maps[follows] = unit_range(difference[:, None])[:, 0].numpy()
    return maps


def second_annotator(entry: Mapping[str, Any], env: str, labelled: Labelled) -> FloatMaps | None:
    """Maps (M, H, W) of a second simulated annotator, whose scores are the inter-annotator
    agreement; None for other annotators.
    """
    if entry["annotator"] != "simulated":
        return None
    config = simulated.Config(**{own.name: entry[own.name] for own in fields(simulated.Config)})
    again = simulated.second_annotator(config, env, labelled.frames, labelled.indices.tolist())
    maps = [heat_map(clicks, *labelled.maps.shape[1:]) for clicks in again]
    shares: FloatMaps = np.divide(maps, 255, dtype=np.float32)
    return shares


def control_points(
    k: int, count: int, moved: FloatMaps | None, seed: int = 0
) -> dict[str, list[Points]]:
    """Keypoints of `count` frames, `k` each: none, the cells nearest the centre, a uniform grid,
    random cells, and those of the maps of motion if there are any.
    """
    rng = np.random.default_rng(seed)
    points = {
        "zero": [np.empty((0, 2))] * count,
        "centre": [central_cells(k)] * count,
        "uniform": [uniform_grid(k)] * count,
        "random": [random_cells(k, rng) for _ in range(count)],
    }
    return points if moved is None else points | {"motion": keypoints(_tensor(moved), k)}


def others(count: int, seed: int = 0) -> NDArray[np.int64]:
    """A random other frame for each of `count` frames; a single frame has itself."""
    order = np.random.default_rng(seed).permutation(count)
    other = np.empty(count, np.int64)
    other[order] = np.roll(order, 1)
    return other


def _tensor(maps: FloatMaps) -> torch.Tensor:
    return torch.from_numpy(maps)[:, None]
