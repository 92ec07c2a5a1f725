"""Every error map of 256 frames a game against the definition: `python -m bench.exact [FRAMES]`.

The definition reconstructs each centre from its neighbours through the whole decoder, in three
passes a frame. It is compared with the maps that policies get, which the cache computes for
TOGETHER frames at once, with the committed weights of SPIRL's Frostbite. The tests do the same on a
sample. Takes a quarter of an hour on one core, and writes `artifacts/error-maps.json`: the number
of centres, the largest difference, and the number of frames in which other patches are selected, at
the default slope. RESULTS.md quotes the file's copy in `bench/measured/`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from bench.error_map import TARGETS, plain_map, random_frames
from datasets.files import write_atomic
from pipeline.runtime.artifact import versions
from pipeline.runtime.progress import Progress
from pipeline.runtime.record import commit, machine
from pretrain.encoders.mae import Features
from pretrain.frozen import load_encoder
from pretrain.modules.vit import MaskedViT
from pretrain.spirl import select
from pretrain.spirl.error_cache import ErrorCache

WEIGHTS = "pipeline/recipes/weights/frostbite-mae"
RESULT = Path("artifacts/error-maps.json")
FRAMES, TOGETHER = 256, 8
TOLERANCE = 1e-5  # of an error


@torch.no_grad()
def compare(model: MaskedViT, frames: Tensor, progress: Progress) -> dict[str, Any]:
    """The cache's maps of frames (N, C, H, W) uint8 against the definition's."""
    cache, plain = ErrorCache(model), plain_map(model)
    largest, other = 0.0, 0
    for group in torch.split(frames, TOGETHER):
        for result, frame in zip(cache(group), group, strict=True):
            expected = plain(frame[None])[0]
            largest = max(largest, float((result - expected).abs().max()))
            other += _selected(result) != _selected(expected)
            progress()
    return {
        "frames": len(frames),
        "centres": len(frames) * model.patches,
        "remembered": cache.hits,
        "largest_difference": largest,
        "frames_with_another_selection": other,
    }


def wrong_games(games: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The games whose maps are not the definition's."""
    return [
        game
        for game, result in games.items()
        if not result["largest_difference"] <= TOLERANCE or result["frames_with_another_selection"]
    ]


def _selected(errors: Tensor) -> set[int]:
    """All patches that are salient by a map (N,)."""
    index, mask = select.dynamic(errors[None], Features().slope, len(errors))
    return set(index[mask].tolist())


def main() -> None:
    """The command line."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else FRAMES
    torch.set_num_threads(1)
    model = cast(Any, load_encoder(WEIGHTS)).model
    progress = Progress("error maps", count * len(TARGETS), "frames")
    result = {
        game: compare(model, random_frames(f"atari/{game}", count), progress) for game in TARGETS
    }
    progress.finish()
    where = {"machine": machine(), "versions": versions(), "commit": commit()}
    content = {"weights": WEIGHTS, "games": result, **where}
    RESULT.parent.mkdir(exist_ok=True)
    write_atomic(RESULT, (json.dumps(content, indent=1) + "\n").encode())
    print(json.dumps(result, indent=1))
    if wrong := wrong_games(result):
        sys.exit(f"not the definition's maps: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
