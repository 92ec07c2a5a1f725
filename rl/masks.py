"""A mask on a network's last map, as self-supervised attention has it (Wu et al. 2021, Fig. 2)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from pretrain.encoder import Obs
from rl.net import Extras


def masked(features: Tensor, mask: Tensor) -> Tensor:
    """A map (B, c, h, w) times a mask (B, 1, h', w'), the same for all channels.

    Where the grids differ the mask is interpolated, and averaged over what a cell of a coarser map
    covers.
    """
    if mask.shape[2:] != features.shape[2:]:
        mask = F.interpolate(mask, features.shape[2:], mode="bilinear", antialias=True)
    return features * mask.to(features.dtype)


def masked_by(features: Tensor, stack: Obs) -> tuple[Tensor, Extras]:
    """A map times the mask of the stack's newest frame, and that mask (B, 1, h', w') as an extra;
    the map itself on features without masks.
    """
    if "attention" not in stack:
        return features, {}
    mask = stack["attention"][:, -1:]
    return masked(features, mask), {"attention": mask}
