"""A mask multiplied onto a feature map: self-supervised attention (Wu et al. 2021, Fig. 2)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from pretrain.encoder import Obs
from rl.net import Extras


def masked(features: Tensor, mask: Tensor) -> Tensor:
    """A feature map (B, c, h, w) times a mask (B, 1, h', w'), the same for all channels.

    If the grids differ, the mask is resized: bilinear interpolation with antialiasing.
    """
    if mask.shape[2:] != features.shape[2:]:
        mask = F.interpolate(mask, features.shape[2:], mode="bilinear", antialias=True)
    return features * mask.to(features.dtype)


def masked_by(features: Tensor, stack: Obs) -> tuple[Tensor, Extras]:
    """A feature map times the newest frame's mask, and that mask (B, 1, h', w') as an extra.

    The map is unchanged if the stack has no masks.
    """
    if "attention" not in stack:
        return features, {}
    mask = stack["attention"][:, -1:]
    return masked(features, mask), {"attention": mask}
