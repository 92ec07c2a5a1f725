"""How badly each patch is drawn from its eight neighbours alone: SPIRL's reconstruction error map
(§4.2), exactly.

For a centre the encoder sees CLS and the neighbours that exist (3 in a corner, 5 at an edge, 8
inside), the decoder gets them at their places and the mask token everywhere else, and only its
prediction at the centre counts. Two things that cost nothing in exactness are saved: a patch is
embedded once, not once per neighbour, and the decoder's last layer computes the centre's query
only. The result depends on no more than the nine patches and their place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.vit import MaskedViT, normalise

CENTRES = 36  # a pass: with 145 tokens of 128 numbers this fits a core's share of the cache


def neighbourhoods(rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """The neighbours of every patch of a grid of N: (index (N, 8), real (N, 8) bool, place (N, N)).

    `index` lists them in row-major order, `real` is False where a border cut one off, and `place[c,
    p]` is p's rank among c's neighbours counted from 1, or 0 where p is not one: what
    `MaskedViT.place` wants.
    """
    patch = torch.arange(rows * columns)
    row, column = patch // columns, patch % columns
    near = (row[:, None] - row).abs().maximum((column[:, None] - column).abs()) == 1
    place = near.cumsum(1) * near
    index = near.byte().argsort(dim=1, descending=True, stable=True)[:, :8]
    return index, near.gather(1, index), place


def reconstruct_centres(model: MaskedViT, patches: Tensor, *, centres: int = CENTRES) -> Tensor:
    """Each patch drawn from its neighbours: (B, N, pixels) in [0, 1] -> normalised pixels (B, N,
    pixels).

    All frames go through together, `centres` of the N at a time.
    """
    index, real, place = (table.to(patches.device) for table in neighbourhoods(*model.grid))
    batch, count = patches.shape[:2]
    tokens = model.embed(patches)
    drawn = []
    for start in range(0, count, centres):
        chunk = torch.arange(start, min(start + centres, count), device=patches.device)
        seen = tokens[:, index[chunk]].flatten(0, 1)
        latent = model.encode(seen, real[chunk].repeat(batch, 1))
        x = model.place(latent, place[chunk].repeat(batch, 1))
        pixels = model.decode_one(x, chunk.repeat(batch))
        drawn.append(pixels.view(batch, len(chunk), -1))
    return torch.cat(drawn, dim=1)


def error_map(model: MaskedViT, image: Tensor, *, centres: int = CENTRES) -> Tensor:
    """(B, C, H, W) uint8 -> (B, N) float32: mean squared error of each normalised patch."""
    patches = model.to_patches(image)
    drawn = reconstruct_centres(model, patches, centres=centres)
    return (drawn - normalise(patches)).square().mean(-1)
