"""Where a policy looks: its attention over recorded frames, as saliency maps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from datasets.errors import FoveaError
from datasets.shards import FrameSet
from pretrain.encoder import Obs
from rl.actor import Actor
from rl.net import Extras
from rl.policy import Policy


def watch(policy: Policy, frames: FrameSet, stream: int) -> Iterator[NDArray[np.float32]]:
    """A map (H, W) in [0, 1] of each frame of one stream, in time order.

    The policy acts on them as on an environment's, without noise, and remembers; what it would do
    is not done. Maps are those of `attention_map`.

    Raises FoveaError where the policy attends to nothing that has a place in the image.
    """
    actor, begins = Actor(policy), True
    for index in np.flatnonzero(frames.stream == stream):
        one = slice(index, index + 1)
        images, infos = frames.images[one], {name: c[one] for name, c in frames.info.items()}
        if begins:
            actor.begin(images, infos)
        else:
            before, first = slice(index - 1, index), frames.step[one] == 0
            actor.observe(
                images,
                infos,
                action=frames.action[before],
                reward=frames.reward[before],
                first=first,
            )
        begins = False
        _, extras = actor.act(explore=False)
        size = images.shape[1], images.shape[2]
        maps = attention_map(policy, actor.obs, extras, size)
        if maps is None:
            raise FoveaError(
                f"policy in {policy.spec.env}: its net {policy.spec.net} attends to no part of "
                "the image, so there is no map of where it looks"
            )
        yield maps[0].cpu().numpy()


@torch.no_grad()
def attention_map(policy: Policy, obs: Obs, extras: Extras, size: tuple[int, int]) -> Tensor | None:
    """Where a policy attends in frames of `size`, (B, H, W), each cell over its share of the frame.

    The mean of its masks as they are, or of its heads' attention to patches, scaled to a maximum of
    1. None where it attends to nothing that has a place in the frame.
    """
    attention = extras.get("attention")
    if attention is None:
        return None
    if attention.ndim == 4:  # (B, K, h, w)
        grid = attention.mean(1)
    elif policy.encoder.selects:  # (B, heads, N)
        grid = _on_patches(obs, attention.mean(1), policy.encoder.config.patch, size)
    else:
        return None
    return F.interpolate(grid[:, None], size=size, mode="nearest")[:, 0]


def _on_patches(obs: Obs, attention: Tensor, patch: int, size: tuple[int, int]) -> Tensor:
    """Attention (B, N) to tokens on the grid of the patches that they are, (B, rows, columns)."""
    rows, columns = size[0] // patch, size[1] // patch
    weight = attention * obs["mask"]
    grid = weight.new_zeros(len(weight), rows * columns).scatter_add_(1, obs["pos"], weight)
    grid = grid / grid.amax(1, keepdim=True).clamp_min(torch.finfo(grid.dtype).tiny)
    return grid.view(-1, rows, columns)
