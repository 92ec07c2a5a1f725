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
from rl.policy import Policy


def watch(policy: Policy, frames: FrameSet, stream: int) -> Iterator[NDArray[np.float32]]:
    """A map (H, W) in [0, 1] of each frame of one stream, in time order.

    The policy acts on them as on an environment's, without noise, and remembers; what it would do
    is not done. Attention to patches is scaled to a maximum of 1; a mask is not scaled.

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
        attention = extras.get("attention")
        is_mask = attention is not None and attention.dim() == 4
        if attention is None or not (is_mask or policy.encoder.selects):
            raise FoveaError(
                f"policy in {policy.spec.env}: its net {policy.spec.net} attends to no part of "
                "the image, so there is no map of where it looks"
            )
        size = images.shape[1], images.shape[2]
        if is_mask:  # (1, K, h, w)
            maps = F.interpolate(attention.mean(1, keepdim=True), size=size, mode="nearest")[:, 0]
        else:
            maps = _on_patches(actor.obs, attention, policy.encoder.config.patch, size)
        yield maps[0].cpu().numpy()


@torch.no_grad()
def _on_patches(obs: Obs, attention: Tensor, patch: int, size: tuple[int, int]) -> Tensor:
    """Attention (B, heads, N) on tokens to maps (B, H, W): each patch has its token's mean."""
    rows, columns = size[0] // patch, size[1] // patch
    weight = attention.mean(1) * obs["mask"]
    grid = weight.new_zeros(len(weight), rows * columns).scatter_add_(1, obs["pos"], weight)
    grid = grid / grid.amax(1, keepdim=True).clamp_min(torch.finfo(grid.dtype).tiny)
    return F.interpolate(grid.view(-1, 1, rows, columns), size=size, mode="nearest")[:, 0]
