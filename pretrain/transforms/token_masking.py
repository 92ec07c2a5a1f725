"""Which tokens of several modalities are visible: MultiMAE's masks (Bachmann et al. 2022, §3.2).

A sample of a symmetric Dirichlet distribution splits an image's fixed number of visible tokens
among its modalities. With two modalities and concentration 1 all splits are equally likely, from
all to none. Token m * N + n is patch n of modality m.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]


def sample(
    rng: np.random.Generator, batch: int, modalities: int, patches: int, visible: int
) -> Tokens:
    """Each image's visible tokens, (B, visible) ascending, split by Dirichlet(1, ..., 1)."""
    return pick(rng, rng.dirichlet(np.ones(modalities), batch), patches, visible)


def pick(
    rng: np.random.Generator, shares: NDArray[np.float64], patches: int, visible: int
) -> Tokens:
    """`visible` random tokens an image, of which modality m gets the share `shares[:, m]` (B, M),
    rounded. Where rounding gives one too many or too few, chance decides.
    """
    rank = rng.random((*shares.shape, patches)).argsort(-1).argsort(-1)
    late = (rank >= np.rint(shares * visible)[..., None]).reshape(len(shares), -1)
    order = (late + rng.random(late.shape)).argsort(1)
    return np.sort(order[:, :visible], axis=1)


def hidden(keep: Tokens, modalities: int, patches: int) -> NDArray[np.bool_]:
    """A mask (B, M, N) of the patches that are not among `keep` (B, K)."""
    mask = np.ones((len(keep), modalities * patches), bool)
    np.put_along_axis(mask, keep, False, axis=1)
    return mask.reshape(len(keep), modalities, patches)


def places(keep: Tokens, modalities: int, patches: int) -> Tokens:
    """The row of each patch (B, M, N) in a table of all images' visible tokens `keep` (B, K), or
    B * K + n where patch n is masked.
    """
    rows = np.tile(np.arange(patches) + keep.size, (len(keep), modalities))
    np.put_along_axis(rows, keep, np.arange(keep.size).reshape(keep.shape), axis=1)
    return rows.reshape(len(keep), modalities, patches)
