"""Where a policy looks: its attention over recorded frames, as saliency maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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


def watch(
    policy: Policy, frames: FrameSet, stream: int, head: int | None = None
) -> Iterator[NDArray[np.float32]]:
    """A map (H, W) in [0, 1] of each frame of one stream, in time order.

    The policy acts on them as on an environment's, without noise, and remembers; what it would do
    is not done. Maps are those of `attention_map`, of all heads or of one.

    Raises FoveaError where the policy attends to nothing that has a place in the image, or has no
    such head.
    """
    actor, begins = Actor(policy), True
    rows = np.flatnonzero(frames.stream == stream)
    if "action" in policy.agent.core.reads and not policy.continuous:
        _check_actions(policy, frames.action[rows])
    for index in rows:
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
        maps = attention_map(policy, actor.obs, extras, size, head)
        if maps is None:
            raise FoveaError(
                f"policy in {policy.spec.env}: its net {policy.spec.net} attends to no part of "
                "the image, so there is no map of where it looks"
            )
        yield maps[0].cpu().numpy()


def _check_actions(policy: Policy, action: NDArray[Any]) -> None:
    if action.ndim != 1 or action.min() < 0 or action.max() >= policy.spec.actions:
        raise FoveaError(
            f"policy in {policy.spec.env}: its net {policy.spec.net} reads the last of "
            f"{policy.spec.actions} actions, but the frames were recorded with others; use "
            "frames of its own game"
        )


@torch.no_grad()
def attention_map(
    policy: Policy, obs: Obs, extras: Extras, size: tuple[int, int], head: int | None = None
) -> Tensor | None:
    """Where a policy attends in frames of `size`, (B, H, W).

    Its maps over the image as its net places them (`on_image`), or the mean of its heads' attention
    to patches, scaled to a maximum of 1; of one `head`, its alone. None where it attends to nothing
    that has a place in the frame. Raises FoveaError if there is no such head.
    """
    attention = extras.get("attention")
    if attention is None:
        return None
    if head is not None:
        if not 0 <= head < attention.shape[1]:
            raise FoveaError(
                f"head: {head}, must be 0 to {attention.shape[1] - 1}: those of the net "
                f"{policy.spec.net}"
            )
        attention = attention[:, head : head + 1]
    if attention.ndim == 4:  # (B, K, h, w)
        return policy.agent.core.on_image(attention, size)
    if policy.encoder.selects:  # (B, heads, N)
        grid = _on_patches(obs, attention.mean(1), policy.encoder.config.patch, size)
        return F.interpolate(grid[:, None], size=size, mode="nearest")[:, 0]
    return None


def _on_patches(obs: Obs, attention: Tensor, patch: int, size: tuple[int, int]) -> Tensor:
    """Attention (B, N) to tokens on the grid of the patches that they are, (B, rows, columns)."""
    rows, columns = size[0] // patch, size[1] // patch
    weight = attention * obs["mask"]
    grid = weight.new_zeros(len(weight), rows * columns).scatter_add_(1, obs["pos"], weight)
    grid = grid / grid.amax(1, keepdim=True).clamp_min(torch.finfo(grid.dtype).tiny)
    return grid.view(-1, rows, columns)
