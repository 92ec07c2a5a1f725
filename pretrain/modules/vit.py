"""Patches, sin-cos positions and the masked autoencoder's network, on timm's transformer block.

He et al., "Masked Autoencoders Are Scalable Vision Learners" (2022), at the sizes of SPIRL's Table
4. A Linear embeds a patch as one row of pixels (equal to a convolution whose stride is its size),
so that only visible patches are embedded.
"""

from __future__ import annotations

from typing import cast

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.errors import FoveaError


def patchify(image: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, N, patch * patch * C), row by row, each (row, column, channel)."""
    batch, channels, height, width = image.shape
    rows, columns = height // patch, width // patch
    grid = image.reshape(batch, channels, rows, patch, columns, patch)
    count = -1 if batch else rows * columns  # -1 is ambiguous for an empty batch
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, count, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int, image_shape: tuple[int, int, int]) -> Tensor:
    """The inverse of `patchify`: (B, N, patch * patch * C) -> (B, C, H, W)."""
    channels, height, width = image_shape
    rows, columns = height // patch, width // patch
    grid = patches.reshape(len(patches), rows, columns, patch, patch, channels)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), channels, height, width)


def normalise(patches: Tensor) -> Tensor:
    """Each patch normalised by its mean and unbiased variance, the MAE's target (SPIRL eq. 1)."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def sincos_positions(dim: int, rows: int, columns: int) -> Tensor:
    """(rows * columns, dim): first half the column, then the row; in each sines, then cosines."""
    frequency = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))

    def waves(count: int) -> Tensor:
        angle = torch.arange(count, dtype=torch.float64)[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    column = waves(columns).repeat(rows, 1)
    row = waves(rows).repeat_interleave(columns, dim=0)
    return torch.cat([column, row], dim=1).float()


def grid_of(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """Rows and columns of patches. Raises FoveaError if `patch` does not divide (height, width)."""
    height, width = size
    if height % patch or width % patch:
        raise FoveaError(
            f"patch: {patch} does not divide the image, {height} x {width}; "
            "choose a divisor of both sides"
        )
    return height // patch, width // patch


def query_one(block: Block, x: Tensor, at: Tensor) -> Tensor:
    """`block(x)` at one position per sequence, without computing the others.

    x (S, T, D), at (S,) int64 -> (S, D). Exact: keys and values are those of all T, but their
    matrices are applied to the query and to the softmax average of x, which are one row a head. The
    keys' bias adds the same to all scores of a query, so it is left out.
    """
    sequences, _, dim = x.shape
    attention = cast(Attention, block.attn)
    heads, weight, bias = attention.num_heads, attention.qkv.weight, attention.qkv.bias
    to_key, to_value = weight[dim:].view(2, heads, -1, dim)
    normed = block.norm1(x)
    row = torch.arange(sequences, device=x.device)
    query = F.linear(normed[row, at] * attention.scale, weight[:dim], bias[:dim] * attention.scale)
    queries = torch.bmm(query.view(sequences, heads, -1).transpose(0, 1), to_key).transpose(0, 1)
    average = (queries @ normed.transpose(1, 2)).softmax(-1) @ normed
    value = torch.bmm(average.transpose(0, 1), to_value.transpose(1, 2)).transpose(0, 1)
    attended = value.reshape(sequences, dim) + bias[2 * dim :]
    out: Tensor = x[row, at] + attention.proj(attended)
    return out + block.mlp(block.norm2(out))  # type: ignore[no-any-return]  # timm's modules are Any


class Norm(nn.LayerNorm):
    """LayerNorm with the MAE's epsilon; timm passes device and dtype."""

    def __init__(
        self, dim: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(dim, eps=1e-6, device=device, dtype=dtype)


class MaskedViT(nn.Module):
    """A small encoder of some patches and a larger decoder that reconstructs them all.

    Raises FoveaError where `patch` does not divide the image.
    """

    positions: Tensor
    decoder_positions: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        patch: int,
        *,
        dim: int = 64,
        depth: int = 3,
        heads: int = 4,
        decoder_dim: int = 128,
        decoder_depth: int = 3,
        decoder_heads: int = 8,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.image_shape, self.patch = image_shape, patch
        self.grid = grid_of((height, width), patch)
        self.patches = self.grid[0] * self.grid[1]

        self.embed_patch = nn.Linear(patch * patch * channels, dim)
        self.cls = nn.Parameter(torch.empty(1, 1, dim))
        self.blocks = nn.ModuleList(
            Block(dim, heads, qkv_bias=True, norm_layer=Norm) for _ in range(depth)
        )
        self.norm = Norm(dim)

        self.embed_latent = nn.Linear(dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder_dim))
        self.decoder_blocks = nn.ModuleList(
            Block(decoder_dim, decoder_heads, qkv_bias=True, norm_layer=Norm)
            for _ in range(decoder_depth)
        )
        self.decoder_norm = Norm(decoder_dim)
        self.predict = nn.Linear(decoder_dim, patch * patch * channels)

        # Not trained, so not in the state dict; the CLS token's position is all zero.
        self.register_buffer("positions", sincos_positions(dim, *self.grid), persistent=False)
        places = F.pad(sincos_positions(decoder_dim, *self.grid), (0, 0, 1, 0))
        self.register_buffer("decoder_positions", places, persistent=False)

    def initialise(self, seed: int) -> None:
        """Xavier-uniform Linears, zero biases, both tokens N(0, 0.02); norms stay 1 and 0."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
        for token in (self.cls, self.mask_token):
            nn.init.normal_(token, std=0.02, generator=generator)

    def to_patches(self, image: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> (B, N, patch * patch * C) float32 in [0, 1]."""
        return patchify(image, self.patch).float() / 255

    def embed(self, patches: Tensor, index: Tensor | None = None) -> Tensor:
        """(B, K, pixels), at `index` (B, K) or all in order -> (B, K, D) with positions added."""
        places = self.positions if index is None else self.positions[index]
        tokens: Tensor = self.embed_patch(patches) + places
        return tokens

    def encode(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, K, D), mask (B, K) bool, True for real tokens -> (B, 1 + K, D), CLS first, after the
        final norm.

        No token attends to a masked one; the outputs at masked positions have no meaning.
        """
        x = torch.cat([self.cls.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        if mask is not None:
            mask = F.pad(mask, (1, 0), value=True)[:, None, None, :]
        for block in self.blocks:
            x = block(x, attn_mask=mask)
        latent: Tensor = self.norm(x)
        return latent

    def place(self, latent: Tensor, place: Tensor) -> Tensor:
        """The decoder's input (B, 1 + N, D'): each latent at its patch's position, the mask token
        at all others.

        `latent` is (B, 1 + K, D); `place` (B, N) int64 is the index of each patch's latent, 1 to K,
        or 0 for none.
        """
        rows = self.embed_latent(latent)
        batch, length, dim = rows.shape
        first = torch.arange(batch, device=rows.device)[:, None] * length  # each image's CLS
        source = torch.cat([first, torch.where(place > 0, first + place, batch * length)], dim=1)
        table = torch.cat([rows.reshape(-1, dim), self.mask_token.to(rows.dtype).view(1, dim)])
        x = table.index_select(0, source.flatten()).view(batch, -1, dim)
        return x + self.decoder_positions

    def decode(self, x: Tensor) -> Tensor:
        """(B, 1 + N, D') -> predicted normalised pixels of every patch (B, N, pixels)."""
        for block in self.decoder_blocks:
            x = block(x)
        pixels: Tensor = self.predict(self.decoder_norm(x[:, 1:]))
        return pixels

    def forward(self, patches: Tensor, index: Tensor) -> Tensor:
        """Reconstruct every patch (B, N, pixels) from those at `index` (B, K) alone."""
        visible = patches.gather(1, index[..., None].expand(-1, -1, patches.shape[2]))
        latent = self.encode(self.embed(visible, index))
        rank = torch.arange(1, index.shape[1] + 1, device=index.device).expand_as(index)
        place = index.new_zeros(patches.shape[:2]).scatter(1, index, rank)
        return self.decode(self.place(latent, place))
