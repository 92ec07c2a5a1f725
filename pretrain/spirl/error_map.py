"""SPIRL's exact reconstruction error map (§4.2): each patch is reconstructed from its eight
neighbours alone.

For a centre, the encoder gets CLS and the existing neighbours (3 in a corner, 5 at an edge, 8
inside). The decoder gets their latents at their positions, and the mask token at all others. Only
its prediction at the centre counts. Three computations are saved, and the result is still exact. A
patch is embedded once, not once for each neighbour. The decoder's first layer computes the queries,
keys and values of mask tokens, which are equal for all centres, once for each position. Its last
layer computes the centre's query only. The result depends on the nine patches and their positions
alone.
"""

from __future__ import annotations

from typing import cast

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor
from torch.nn import functional as F

from pretrain.modules.linear import fast_linear
from pretrain.modules.vit import MaskedViT, normalise, query_one

CENTRES = 36  # in a pass over all frames together
FEW = 8  # centres in a pass of `errors_at`: fits a core's cache, and needs little padding


def neighbourhoods(
    rows: int, columns: int, *, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """The neighbours of every patch of a grid of N: (index (N, 8), real (N, 8) bool, place (N, N)).

    `index` lists them in row-major order, and `real` is False for those beyond the border.
    `place[c, p]` is p's rank among c's neighbours, counted from 1, or 0 if p is none of them: the
    argument of `MaskedViT.place`.
    """
    patch = torch.arange(rows * columns, device=device)
    row, column = patch // columns, patch % columns
    near = (row[:, None] - row).abs().maximum((column[:, None] - column).abs()) == 1
    place = near.cumsum(1) * near
    index = near.byte().argsort(dim=1, descending=True, stable=True)[:, :8]
    spare = 8 - index.shape[1]  # of grids of fewer than eight patches
    return F.pad(index, (0, spare)), F.pad(near.gather(1, index), (0, spare)), place


def reconstruct_centres(model: MaskedViT, patches: Tensor, *, centres: int = CENTRES) -> Tensor:
    """Reconstruct each patch from its neighbours: (B, N, pixels) in [0, 1] -> normalised pixels
    (B, N, pixels).

    A pass has `centres` of the N patches of all frames.
    """
    # Made on the device: a copy would wait, and a CUDA graph cannot contain one.
    index, real, place = neighbourhoods(*model.grid, device=patches.device)
    batch, count = patches.shape[:2]
    tokens = model.embed(patches)
    masks = _masks(model)
    predicted = []
    for start in range(0, count, centres):
        chunk = torch.arange(start, min(start + centres, count), device=patches.device)
        visible = tokens[:, index[chunk]].flatten(0, 1)
        near = (table[chunk].repeat(batch, 1) for table in (index, real, place))
        pixels = _reconstruct(model, masks, visible, chunk.repeat(batch), *near)
        predicted.append(pixels.view(batch, len(chunk), -1))
    return torch.cat(predicted, dim=1)


def error_map(model: MaskedViT, image: Tensor, *, centres: int = CENTRES) -> Tensor:
    """(B, C, H, W) uint8 -> (B, N) float32: mean squared error of each normalised patch."""
    patches = model.to_patches(image)
    predicted = reconstruct_centres(model, patches, centres=centres)
    return (predicted - normalise(patches)).square().mean(-1)


def errors_at(
    model: MaskedViT, patches: Tensor, centres: Tensor, near: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Some entries of frames' error maps: (B, N, pixels) in [0, 1], at (M,) int64 -> (M,) float32.
    Centre c of frame b is number b N + c; `near` is the grid's `neighbourhoods`.

    A centre's error is bit by bit the same in any batch. A pass always has `FEW` centres, padded if
    need be, and patches are embedded frame by frame, so that all operations have the same shapes.
    The tests show that a sum of products does not depend on its row.
    """
    tokens = torch.cat([model.embed(frame[None])[0] for frame in patches])  # (B N, D)
    target = torch.cat([normalise(frame) for frame in patches])
    masks = _masks(model)
    errors = []
    padded = F.pad(centres, (0, -len(centres) % FEW))
    for chunk in torch.split(padded, FEW):
        centre = chunk % model.patches
        index, real, place = (table[centre] for table in near)
        visible = tokens[index + (chunk - centre)[:, None]]
        with fast_linear(patches.device):
            predicted = _reconstruct(model, masks, visible, centre, index, real, place)
        errors.append((predicted - target[chunk]).square().mean(-1))
    return torch.cat(errors)[: len(centres)]


def _masks(model: MaskedViT) -> Tensor:
    """The mask tokens' queries, keys and values in the decoder's first layer, (1 + N, 3 D')."""
    block = cast(Block, model.decoder_blocks[0])
    qkv: Tensor = cast(Attention, block.attn).qkv(
        block.norm1(model.mask_token[0] + model.decoder_positions)
    )
    return qkv


def _reconstruct(
    model: MaskedViT,
    masks: Tensor,
    visible: Tensor,
    centre: Tensor,
    index: Tensor,
    real: Tensor,
    place: Tensor,
) -> Tensor:
    """Reconstruct centres (S,) from their neighbours' tokens (S, 8, D) -> normalised pixels
    (S, pixels).

    The last three are the rows of `neighbourhoods` for these centres.
    """
    x = model.place(model.encode(visible, real), place)
    first, *middle = (cast(Block, block) for block in model.decoder_blocks)
    if middle:
        last = middle.pop()
        x = _first_block(first, x, masks, torch.where(real, index + 1, 0), place)
        for block in middle:
            x = block(x)
    else:
        last = first
    pixels: Tensor = model.predict(model.decoder_norm(query_one(last, x, centre + 1)))
    return pixels


def _first_block(block: Block, x: Tensor, masks: Tensor, rows: Tensor, place: Tensor) -> Tensor:
    """`block(x)`, where x (S, 1 + N, D') is the mask token except at CLS and at `rows` (S, K).

    `masks` are the mask tokens' queries, keys and values; only the others' are computed.
    """
    sequences, length, dim = x.shape
    attention = cast(Attention, block.attn)
    rows = F.pad(rows, (1, 0))
    visible = attention.qkv(block.norm1(x.gather(1, rows[..., None].expand(-1, -1, dim))))
    first = torch.arange(sequences, device=x.device)[:, None] * rows.shape[1]
    mask = rows.numel() + torch.arange(1, length, device=x.device)
    source = torch.cat([first, torch.where(place > 0, first + place, mask)], dim=1).flatten()
    qkv = torch.cat([visible.flatten(0, 1), masks]).index_select(0, source)
    heads = qkv.view(sequences, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
    x = x + attention.proj(attended.transpose(1, 2).reshape(x.shape))
    return x + block.mlp(block.norm2(x))  # type: ignore[no-any-return]  # timm's modules are Any
