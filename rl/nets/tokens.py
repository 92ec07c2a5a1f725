"""SPIRL's aggregator: one attention block pools a frame's salient patches into a short vector.

Jiang and Weng, "Unsupervised Salient Patch Selection for Data-Efficient Reinforcement Learning"
(ECML PKDD 2023), section 4.3, Tables 13-15. Every frame of the stack goes through on its own:
shared Linear to `width`, a learned CLS token in front, one pre-norm transformer block, a final
norm, the CLS row out; the rows of the stacked frames are concatenated.

Where the paper is silent or divided:
- Table 13 has no residual "inside the attention block", the text none "inside the transformer
  layer": here `residual` switches both skips of the block, off by default. The released code has
  them on.
- Only the pooled rows of the block are computed. At depth 1 this is exact, not an approximation.
  And the CLS token is alike in all frames, so its question to the patches is one for all of them.
- `pad` (Table 14): "zero" attends to the zero rows, the paper's best; "learned" puts a trained
  vector in their place; "masked" does not attend to them.
- `aggregate` "mean" (Table 15) averages the patches' rows, only the real ones where `pad` is
  "masked".

14,880 parameters at the defaults with 64-d tokens. Expect on Seaquest after 100K steps (Table 14):
pad zero 558, learned 492, masked 494; scores on the other games are in agents/rainbow.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pretrain.encoder import Obs
from rl.net import Net as BaseNet


@dataclass(frozen=True)
class Config:
    """Tables 13-15; defaults are the paper's."""

    aggregate: str = "cls"
    pad: str = "zero"
    residual: bool = False
    width: int = 32
    heads: int = 8
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        if self.aggregate not in ("cls", "mean"):
            raise ValueError(f"aggregate: {self.aggregate!r}, must be cls or mean")
        if self.pad not in ("zero", "learned", "masked"):
            raise ValueError(f"pad: {self.pad!r}, must be zero, learned or masked")
        if self.heads < 1 or self.width < self.heads or self.width % self.heads:
            raise ValueError(f"width: {self.width}, must be a multiple of heads ({self.heads})")
        if self.mlp_ratio < 1:
            raise ValueError(f"mlp_ratio: {self.mlp_ratio}, must be at least 1")


class Net(BaseNet):
    """x (B, S, N, D), mask (B, S, N), pos to (B, S·width); extra: attention (B, heads, N)."""

    gains_compiled = True  # a quarter to two thirds more updates a second

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

    def forward(self, stack: Obs) -> tuple[Tensor, dict[str, Tensor]]:
        """Aggregate every frame of every stack; attention is what pooling gave each patch."""
        x, mask = stack["x"], stack["mask"]
        batch, depth, count, dim = x.shape
        assert mask.shape == (batch, depth, count), (mask.shape, x.shape)
        pooled, attention = self.aggregate(x.view(-1, count, dim), mask.view(-1, count))
        newest = attention.view(batch, depth, self.config.heads, count)[:, -1]
        return pooled.view(batch, self.width), {"attention": newest}

    def aggregate(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Single frames: x (F, N, D), mask (F, N) to (F, width) and attention (F, heads, N)."""
        if self.config.pad == "learned":
            x = torch.where(mask[..., None], x, self.pad)
        patches = self.project(x)
        cls, memory = self.norm1(self.cls), self.norm1(patches)
        rows, query = (self.cls, cls) if self.config.aggregate == "cls" else (patches, memory)
        attended, attention = self._attend(query, cls, memory, mask)
        x = rows + attended if self.config.residual else attended
        update = self.mlp(self.norm2(x))
        x = self.norm(x + update if self.config.residual else update)
        return self._average(x, mask), attention.mean(1)

    def _attend(
        self, query: Tensor, cls: Tensor, memory: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attention of Q rows (F or 1, Q, width) to CLS (1, 1, width) and memory (F, N, width).

        Returns (F, Q, width), and what the N got of each head's attention, (F, Q, heads, N).
        Keys and values are linear in the memory, so instead of the whole memory the few queries are
        projected: q·(W m) = (Wᵀ q)·m. The keys' bias moves all scores alike and cancels.
        """
        heads, width = self.config.heads, self.config.width
        to_key, to_value = self.key_value.weight.view(2, heads, -1, width).unbind()
        q = self.query(query).unflatten(-1, (heads, -1))
        wanted = _per_head(q, to_key * q.shape[-1] ** -0.5).flatten(1, 2)
        # The CLS token's question is the same for all frames: one product instead of F.
        scores = (memory @ (wanted[0] if len(wanted) == 1 else wanted).mT).mT
        if self.config.pad == "masked":
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        own = (wanted @ cls.mT).expand(len(scores), -1, -1)
        own, attention = torch.cat([own, scores], dim=-1).softmax(-1).tensor_split([1], dim=-1)
        gathered = (attention @ memory + own * cls).view(len(memory), -1, heads, width)
        value = _per_head(gathered, to_value.mT).flatten(2)
        attended: Tensor = self.out(value + self.key_value.bias.chunk(2)[1])
        return attended, attention.view(len(memory), -1, heads, memory.shape[1])

    def _average(self, x: Tensor, mask: Tensor) -> Tensor:
        """Rows (F, Q, width) to one: CLS has a single row already."""
        if self.config.aggregate == "mean" and self.config.pad == "masked":
            real = mask[..., None]
            return (x * real).sum(1) / real.sum(1).clamp_min(1)
        return x.mean(1)


def _per_head(x: Tensor, weight: Tensor) -> Tensor:
    """x (F, Q, heads, i) times each head's weight (heads, i, o); einsum takes twice as long."""
    product = x.flatten(0, 1).transpose(0, 1) @ weight
    return product.transpose(0, 1).view(*x.shape[:3], -1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
