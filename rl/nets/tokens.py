"""SPIRL's aggregator: one attention block pools a frame's salient patches into a short vector.

Jiang and Weng, "Unsupervised Salient Patch Selection for Data-Efficient Reinforcement Learning"
(ECML PKDD 2023), section 4.3, Tables 13-15. Every frame of the stack is aggregated separately: a
shared Linear to `width`, a learned CLS token in front, one pre-norm transformer block, a final
norm, and the CLS row is the output; the rows of the stacked frames are concatenated.

Where the paper is unclear:
- Table 13 has no residual "inside the attention block", the text none "inside the transformer
  layer": here `residual` sets both skips of the block, off by default. The released code has them
  on.
- `pad` (Table 14): "zero" attends to the zero rows, the paper's best; "learned" replaces them by a
  trained vector; "masked" does not attend to them.
- `aggregate` "mean" (Table 15) averages the patches' rows, only the real ones if `pad` is "masked".

14,880 parameters at the defaults with 64-d tokens. Expect on Seaquest after 100K steps (Table 14):
pad zero 558, learned 492, masked 494; scores on the other games are in agents/rainbow.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from datasets.checked import Checked, Count, Width
from pretrain.encoder import Obs
from rl.fast import aggregator
from rl.net import Extras
from rl.net import Net as BaseNet

KINDS = ("tokens", "vector")  # of features that it takes


@dataclass(frozen=True)
class Config(Checked):
    """Tables 13-15; defaults are the paper's."""

    aggregate: Literal["cls", "mean"] = "cls"
    pad: Literal["zero", "learned", "masked"] = "zero"
    residual: bool = False
    width: Width = 32
    heads: Count = 8
    mlp_ratio: Count = 4

    def rules(self) -> Iterator[str]:
        """The heads split the width equally."""
        if self.width % self.heads:
            yield f"width: {self.width}, must be a multiple of heads ({self.heads})"


class Net(BaseNet):
    """x (B, S, N, D), mask (B, S, N), pos -> (B, S·width); extra: attention (B, heads, N)."""

    attends = True
    faster_compiled = True  # a quarter to two thirds more updates a second

    def __init__(self, config: Config, example: Obs, stack: int) -> None:
        super().__init__()
        width, dim = config.width, example["x"].shape[-1]
        self.config = config
        self.width = stack * width
        if config.pad == "learned":
            self.pad = nn.Parameter(torch.zeros(dim).normal_(std=0.02))
        self.project = nn.Linear(dim, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width).normal_(std=0.02))
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.mlp_ratio * width),
            nn.GELU(),
            nn.Linear(config.mlp_ratio * width, width),
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.apply(_initialise)

    def forward(self, stack: Obs) -> tuple[Tensor, Extras]:
        """Aggregate every frame of every stack; attention is the newest frame's, on each patch."""
        x, mask = stack["x"], stack["mask"]
        batch, depth, count, dim = x.shape
        assert mask.shape == (batch, depth, count), (mask.shape, x.shape)
        frames = x.view(-1, count, dim), mask.view(-1, count)
        pooled, attention = aggregator.aggregate(self, *frames)  # a faster form of `aggregate`
        newest = attention.view(batch, depth, self.config.heads, count)[:, -1]
        return pooled.view(batch, self.width), {"attention": newest}

    def aggregate(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Single frames: x (F, N, D), mask (F, N) -> (F, width) and attention (F, heads, N)."""
        pad, pool = self.config.pad, self.config.aggregate
        if pad == "learned":
            x = torch.where(mask[..., None], x, self.pad)
        x = torch.cat(
            [self.cls.expand(len(x), -1, -1), self.project(x)], dim=1
        )  # (F, 1 + N, width)
        real = torch.cat(
            [mask.new_ones(len(x), 1), mask if pad == "masked" else mask | True], dim=1
        )
        attended, attention = self._attend(self.norm1(x), real)
        x = x + attended if self.config.residual else attended
        update = self.mlp(self.norm2(x))
        x = self.norm(x + update if self.config.residual else update)
        if pool == "cls":
            return x[:, 0], attention[:, :, 0, 1:]
        weight = real[:, 1:, None]
        mean = (x[:, 1:] * weight).sum(1) / weight.sum(1).clamp_min(1)
        return mean, attention[:, :, 1:, 1:].mean(2)

    def _attend(self, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Attention of all rows (F, R, width) to the `real` ones (F, R): (F, R, width), and the
        weights (F, heads, R, R).
        """
        heads = self.config.heads
        parts = (self.query(x), *self.key_value(x).chunk(2, dim=-1))
        query, key, value = (p.unflatten(-1, (heads, -1)).transpose(1, 2) for p in parts)
        scores = query @ key.mT * query.shape[-1] ** -0.5
        attention = scores.masked_fill(~real[:, None, None], -torch.inf).softmax(-1)
        attended: Tensor = self.out((attention @ value).transpose(1, 2).flatten(2))
        return attended, attention


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
