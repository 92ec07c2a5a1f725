"""SPIRL's aggregator (rl/nets/tokens.py) with only the pooled rows of its block computed.

At depth 1 this is exact, not an approximation: a row depends on the others through attention's keys
and values alone. The CLS token is equal in all frames, so they share one query.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Aggregator(Protocol):
    """The layers of the net."""

    config: Any
    pad: nn.Parameter
    cls: nn.Parameter
    project: nn.Linear
    norm1: nn.LayerNorm
    query: nn.Linear
    key_value: nn.Linear
    out: nn.Linear
    norm2: nn.LayerNorm
    mlp: nn.Sequential
    norm: nn.LayerNorm


def aggregate(net: Aggregator, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Single frames: x (F, N, D), mask (F, N) -> (F, width) and attention (F, heads, N)."""
    if net.config.pad == "learned":
        x = torch.where(mask[..., None], x, net.pad)
    patches = net.project(x)
    cls, memory = net.norm1(net.cls), net.norm1(patches)
    rows, query = (net.cls, cls) if net.config.aggregate == "cls" else (patches, memory)
    attended, attention = _attend(net, query, cls, memory, mask)
    x = rows + attended if net.config.residual else attended
    update = net.mlp(net.norm2(x))
    x = net.norm(x + update if net.config.residual else update)
    return _average(net, x, mask), attention.mean(1)


def _attend(
    net: Aggregator, query: Tensor, cls: Tensor, memory: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Attention of Q rows (F or 1, Q, width) to CLS (1, 1, width) and memory (F, N, width).

    Returns (F, Q, width), and each head's attention on the N, (F, Q, heads, N). Keys and values are
    linear in the memory, so the few queries are projected instead of the whole memory:
    q·(W m) = (Wᵀ q)·m. The keys' bias adds the same to all scores and cancels.
    """
    heads, width = net.config.heads, net.config.width
    to_key, to_value = net.key_value.weight.view(2, heads, -1, width).unbind()
    q = net.query(query).unflatten(-1, (heads, -1))
    directions = _per_head(q, to_key * q.shape[-1] ** -0.5).flatten(1, 2)
    scores = (memory @ (directions[0] if len(directions) == 1 else directions).mT).mT
    if net.config.pad == "masked":
        scores = scores.masked_fill(~mask[:, None], -torch.inf)
    own = (directions @ cls.mT).expand(len(scores), -1, -1)
    own, attention = torch.cat([own, scores], dim=-1).softmax(-1).tensor_split([1], dim=-1)
    mixture = (attention @ memory + own * cls).view(len(memory), -1, heads, width)
    value = _per_head(mixture, to_value.mT).flatten(2)
    attended: Tensor = net.out(value + net.key_value.bias.chunk(2)[1])
    return attended, attention.view(len(memory), -1, heads, memory.shape[1])


def _average(net: Aggregator, x: Tensor, mask: Tensor) -> Tensor:
    """Rows (F, Q, width) -> their mean (F, width); CLS is a single row."""
    if net.config.aggregate == "mean" and net.config.pad == "masked":
        real = mask[..., None]
        return (x * real).sum(1) / real.sum(1).clamp_min(1)
    return x.mean(1)


def _per_head(x: Tensor, weight: Tensor) -> Tensor:
    """x (F, Q, heads, i) times each head's weight (heads, i, o), twice as fast as einsum."""
    product = x.flatten(0, 1).transpose(0, 1) @ weight
    return product.transpose(0, 1).view(*x.shape[:3], -1)
