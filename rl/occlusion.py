"""Occlusion: how a policy's actions and value change when a part of what it sees is removed.

A saliency map is faithful to a policy if removing what it marks changes the policy more than
removing as much elsewhere (Samek et al. 2017, "Evaluating the Visualization of What a Deep Neural
Network Has Learned"). The map's `REMOVED` strongest cells are replaced by the blurred frame, which
removes objects and adds no edges of its own (Greydanus et al. 2018, "Visualizing and Understanding
Atari Agents"). As there, only the newest frame is changed: the policy's memory and earlier frames
of a stack are those of the whole frames.

Differs from both: cells are a grid of 7x7, as keypoints have; the change of the policy is the
Kullback-Leibler divergence, not a difference of logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from datasets.shards import FrameSet
from pretrain.metrics.keypoints import CELLS
from rl.actor import Actor, Images
from rl.policy import Policy

REMOVED = 5  # cells, a tenth of the frame
BLUR = 0.5  # of a cell's sides: the Gaussian's sigma

Maps = NDArray[np.floating[Any]]  # (..., H, W)


def changes(
    policy: Policy, frames: FrameSet, indices: NDArray[np.int64], maps: Maps, seed: int = 0
) -> NDArray[np.float64]:
    """How a policy changes without the strongest cells of maps (K, n, H, W) of frames `indices`,
    ascending: (K, n, 2), KL(π of the whole frame, π of the rest) in nats, and |V - V of the rest|.

    NaN where a map is constant, or not finite: it marks no cells. Equal cells are taken at random.
    Raises KeyError for an agent without probabilities of actions and a value.
    """
    rng = np.random.default_rng(seed)
    result = np.full((*maps.shape[:2], 2), np.nan)
    places = {index: place for place, index in enumerate(indices.tolist())}
    for stream in np.unique(frames.stream[indices]).tolist():
        for index, actor in _over(policy, frames, stream, set(places)):
            place, image = places[index], frames.images[index]
            cells = [strongest(each, rng) for each in maps[:, place]]
            marked = [number for number, some in enumerate(cells) if some is not None]
            soft = blur(image)
            removed = [np.where(inside(some, image.shape), soft, image)
                       for some in cells if some is not None]  # fmt: skip
            infos = {name: column[index : index + 1] for name, column in frames.info.items()}
            if removed:
                result[marked, place] = _changes(actor, np.stack([image, *removed]), infos)
    return result


def strongest(saliency: Maps, rng: np.random.Generator) -> NDArray[np.int64] | None:
    """The row-major numbers of the REMOVED cells with the highest means; None of a map that is
    constant or not finite.
    """
    grid = F.adaptive_avg_pool2d(torch.from_numpy(saliency[None].astype(np.float64)), CELLS)
    values = grid.numpy().ravel()
    if not np.isfinite(values).all() or np.ptp(values) <= 1e-6 * np.abs(values).max():
        return None
    order = rng.permutation(values.size)
    cells: NDArray[np.int64] = order[(-values[order]).argsort(kind="stable")[:REMOVED]]
    return cells


def blur(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (H, W, C) without what is smaller than a cell."""
    sides = [BLUR * pixels / count for pixels, count in zip(image.shape[:2], CELLS, strict=True)]
    blurred: NDArray[np.float64] = gaussian_filter(image.astype(np.float64), [*sides, 0])
    return np.rint(blurred).astype(np.uint8)


def inside(cells: NDArray[np.int64], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Which pixels (H, W, 1) of an image of `shape` are in some cells."""
    rows, columns = (
        np.arange(pixels) * count // pixels for pixels, count in zip(shape[:2], CELLS, strict=True)
    )
    return np.isin(rows[:, None] * CELLS[1] + columns, cells)[..., None]


def _over(
    policy: Policy, frames: FrameSet, stream: int, chosen: set[int]
) -> Iterator[tuple[int, Actor]]:
    """The chosen frames of a stream, each with an actor that is to act on it: as `rl.watch`."""
    actor, rows = Actor(policy), np.flatnonzero(frames.stream == stream).tolist()
    last = max(chosen.intersection(rows))
    for index in range(rows[0], last + 1):
        one, before = slice(index, index + 1), slice(index - 1, index)
        images, infos = frames.images[one], {name: c[one] for name, c in frames.info.items()}
        if index == rows[0]:
            actor.begin(images, infos)
        else:
            actor.observe(
                images,
                infos,
                action=frames.action[before],
                reward=frames.reward[before],
                first=frames.step[one] == 0,
            )
        if index in chosen:
            yield index, actor
        actor.act(explore=False)


@torch.no_grad()
def _changes(actor: Actor, images: Images, infos: dict[str, Any]) -> NDArray[np.float64]:
    """The changes (K, 2) of K variants of a frame from the frame, which is the first image."""
    count = len(images)
    repeated = {name: np.repeat(column, count, axis=0) for name, column in infos.items()}
    obs = actor.encode(images, repeated)
    obs |= {key: _repeat(actor.last[key], count) for key in actor.agent.core.reads}
    state = {key: _repeat(value, count) for key, value in actor.state.items()}
    _, _, extras = actor.agent.act(obs, state, actor.first.expand(count), explore=False)
    # In float64 their sum is 1 again; a KL of float32 would be lost in rounding.
    log_policy = extras["log_policy"].double().log_softmax(-1)
    value = extras["value"].double()
    kl = (log_policy[:1].exp() * (log_policy[:1] - log_policy[1:])).sum(-1)
    both = torch.stack([kl.clamp_min(0), (value[1:] - value[0]).abs()], dim=-1)
    return both.cpu().numpy()


def _repeat(value: torch.Tensor, count: int) -> torch.Tensor:
    return value.expand(count, *value.shape[1:])
