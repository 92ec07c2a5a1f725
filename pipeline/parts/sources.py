"""Sources of saliency of one form: predictors, encoders, and seeds of a policy."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.saliency import Indices
from datasets.shards import FrameSet
from pipeline.parts.maps import FloatMaps, check_size, predict
from pipeline.runtime.artifact import Artifact
from pretrain.encoder import Encoder
from pretrain.frozen import EncoderMap, load_saliency
from pretrain.images import channels_first
from pretrain.metrics.keypoints import Points, keypoints


@dataclass(frozen=True)
class Source:
    """A function from frames to saliency maps."""

    seed: int | None  # of a policy
    look: Callable[[FrameSet, Indices], FloatMaps]  # frames of one stream, rising -> maps
    own: Callable[[NDArray[np.uint8]], list[Points]] | None = None  # its own, trained keypoints


def open_sources(by: Artifact, frames: FrameSet) -> list[Source]:
    """The source of an artifact: one of a predictor or an encoder, one a seed of a policy.

    Raises FoveaError if it is for images of another size, or no seed has weights.
    """
    if by.label.startswith("policies/"):
        # By name, so that rl/ is only in the code stamps of exams of policies, and of labels by
        # them (pipeline/config/closure.py).
        watched = importlib.import_module("pipeline.parts.watched")
        sources: list[Source] = watched.seeds(by.folder, frames)
        return sources
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = load_saliency(by.folder, device=device)
    check_size(source.image_shape, frames, by.folder)
    encoder = source.encoder if isinstance(source, EncoderMap) else None
    own = encoder is not None and encoder.config.own_keypoints is not None
    return [
        Source(
            None,
            lambda frames, indices: predict(source, frames.images[indices], device),
            (lambda images: _own(encoder, images, device)) if encoder and own else None,
        )
    ]


def points_of(source: Source, images: NDArray[np.uint8], maps: FloatMaps, k: int) -> list[Points]:
    """A source's keypoints in images (n, H, W, C): its own, or `k` of each of its maps."""
    if source.own is not None:
        return source.own(images)
    return keypoints(torch.from_numpy(maps)[:, None], k)


@torch.no_grad()
def _own(encoder: Encoder, images: NDArray[np.uint8], device: str) -> list[Points]:
    """An encoder's own keypoints in images (N, H, W, C)."""
    points = encoder.keypoints(channels_first(images).contiguous().to(device))
    assert points is not None, "its Config has their number"
    return list(points.double().cpu().numpy())
