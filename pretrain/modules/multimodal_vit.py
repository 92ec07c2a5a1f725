"""One transformer over the patches of several modalities, and a decoder for each.

Bachmann et al., "MultiMAE: Multi-modal Multi-task Masked Autoencoders" (ECCV 2022), on timm's
block. All modalities share one grid of N patches. Tokens are ordered by modality, and row-major in
each, so token m * N + n is patch n of modality m. The global token comes last, without a position.
In the encoder only the projection distinguishes the modalities; a decoder adds a learned vector for
each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.modules.vit import Norm, grid_of, patchify, sincos_positions


@dataclass(frozen=True)
class Modality:
    """The statistics of a modality's channels, by which its pixels are standardised."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class MultiViT(nn.Module):
    """Patches of every modality -> tokens that attend to one another; no norm at the end.

    Raises FoveaError where `patch` does not divide the image.
    """

    positions: Tensor

    def __init__(
        self,
        size: tuple[int, int],
        patch: int,
        modalities: Mapping[str, Modality],
        *,
        dim: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.size, self.patch = size, patch
        self.grid = grid_of(size, patch)
        self.patches = self.grid[0] * self.grid[1]
        self.pixels = {name: patch**2 * len(m.mean) for name, m in modalities.items()}
        self.project = nn.ModuleDict({k: nn.Linear(n, dim) for k, n in self.pixels.items()})
        self.global_token = nn.Parameter(torch.empty(dim))
        self.blocks = nn.ModuleList(
            Block(dim, heads, qkv_bias=True, norm_layer=Norm) for _ in range(depth)
        )
        # Not trained, so not in the state dict.
        self.register_buffer("positions", sincos_positions(dim, *self.grid), persistent=False)
        for name, modality in modalities.items():
            for key, values in (("mean", modality.mean), ("std", modality.std)):
                row = torch.tensor(values).repeat(patch**2)
                self.register_buffer(f"{name}_{key}", row, persistent=False)

    def to_patches(self, name: str, image: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, N, patch * patch * C), by the modality's statistics."""
        patches = patchify(image, self.patch)
        return (patches - self.get_buffer(f"{name}_mean")) / self.get_buffer(f"{name}_std")

    def to_pixels(self, name: str, patches: Tensor) -> Tensor:
        """Undo the standardisation of `to_patches`; the patches stay patches."""
        return patches * self.get_buffer(f"{name}_std") + self.get_buffer(f"{name}_mean")

    def embed(self, patches: Mapping[str, Tensor]) -> Tensor:
        """The tokens of some modalities, (B, N, pixels) each -> (B, M * N, D), positions added."""
        tokens = [self.project[name](rows) + self.positions for name, rows in patches.items()]
        return torch.cat(tokens, dim=1)

    def encode(self, tokens: Tensor) -> Tensor:
        """(B, K, D) -> (B, K + 1, D), the global token last."""
        x = torch.cat([tokens, self.global_token.expand(tokens.shape[0], 1, -1)], dim=1)
        for block in self.blocks:
            x = block(x)
        latent: Tensor = x
        return latent


class Decoder(nn.Module):
    """Reconstructs the patches of one modality from the tokens of all, through one cross-attention
    without a residual, and `depth` blocks over its own patches.
    """

    positions: Tensor

    def __init__(
        self,
        model: MultiViT,
        own: str,
        *,
        dim: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.heads, self.own, self.names = heads, own, tuple(model.pixels)
        self.embed_latent = nn.Linear(model.global_token.shape[0], dim)
        self.mask_token = nn.Parameter(torch.empty(dim))
        # One parameter each, of one dimension, so that weight decay leaves it out.
        self.modality = nn.ParameterDict({name: torch.empty(dim) for name in model.pixels})
        self.norm_query, self.norm_context, self.norm_mlp = Norm(dim), Norm(dim), Norm(dim)
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.mlp = Mlp(dim, 4 * dim)
        self.blocks = nn.ModuleList(
            Block(dim, heads, qkv_bias=True, norm_layer=Norm) for _ in range(depth)
        )
        self.predict = nn.Linear(dim, model.pixels[own])
        self.register_buffer("positions", sincos_positions(dim, *model.grid), persistent=False)

    def forward(self, latent: Tensor, keep: Tensor, place: Tensor, rows: Tensor) -> Tensor:
        """Reconstruct the patches at `rows` (R,) of all B * N -> (R, pixels).

        `latent` (B, K + 1, D) are the encoded tokens at `keep` (B, K). `place` (B, N) is the row of
        each of this modality's patches among all B * K, or B * K + n where patch n is masked.
        """
        context = self.embed_latent(latent)
        visible = context[:, :-1] + self._places()[keep]
        blank = self.mask_token + self.positions + self.modality[self.own]
        # A masked patch has the same query in all images, so it is computed once.
        queries = self.query(self.norm_query(torch.cat([visible.flatten(0, 1), blank])))
        context = torch.cat([visible, context[:, -1:]], dim=1)
        x = self._attend(queries[place], self.norm_context(context))
        x = x + self.mlp(self.norm_mlp(x))
        for block in self.blocks[:-1]:
            x = block(x)
        patches: Tensor = self.predict(_last(cast(Block, self.blocks[-1]), x, rows))
        return patches

    def _places(self) -> Tensor:
        """The positional and modality embeddings of all tokens: (M * N, D)."""
        return torch.cat([self.positions + self.modality[name] for name in self.names])

    def _attend(self, query: Tensor, context: Tensor) -> Tensor:
        """(B, N, D) to (B, K + 1, D), head by head."""
        batch, count, dim = query.shape
        key, value = (
            self.key_value(context).view(batch, -1, 2, self.heads, dim // self.heads).unbind(2)
        )
        x = F.scaled_dot_product_attention(
            query.view(batch, count, self.heads, -1).transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
        )
        out: Tensor = self.proj(x.transpose(1, 2).flatten(2))
        return out


def _last(block: Block, x: Tensor, rows: Tensor) -> Tensor:
    """`block(x)` at `rows` (R,) of all B * N, (B, N, D) -> (R, D): the MLP, two thirds of the work,
    is computed for these only.
    """
    x = x + block.attn(block.norm1(x))
    x = x.flatten(0, 1)[rows]
    out: Tensor = x + block.mlp(block.norm2(x))
    return out


def initialise(module: nn.Module, seed: int) -> None:
    """Xavier-uniform Linears, separately for queries, keys and values; biases and mask tokens 0;
    the global token and the modalities' vectors N(0, 0.02), truncated at ±2; norms stay 1 and 0.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            matrices = {"qkv": 3, "key_value": 2}.get(name.rpartition(".")[2], 1)
            for matrix in part.weight.detach().chunk(matrices):
                nn.init.xavier_uniform_(matrix, generator=generator)
            nn.init.zeros_(part.bias)
        elif isinstance(part, MultiViT):
            nn.init.trunc_normal_(part.global_token, std=0.02, generator=generator)
        elif isinstance(part, Decoder):
            nn.init.zeros_(part.mask_token)
            for vector in part.modality.values():
                nn.init.trunc_normal_(vector, std=0.02, generator=generator)
