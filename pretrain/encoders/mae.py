"""SPIRL's encoder: a masked autoencoder that encodes the patches with large reconstruction errors.

Jiang and Weng, "Unsupervised Salient Patch Selection for Data-Efficient Reinforcement Learning"
(SPIRL, ECML PKDD 2023), §4.1-4.2, Tables 4 and 5. The autoencoder learns on a random policy's
frames. Once frozen, it reconstructs every patch from its neighbours, selects the patches with a
large error, and encodes them together. The policy gets their embeddings with their positions added
once more.

Differs from the paper: errors are on normalised pixels, and the neighbours are all eight, as in the
released code. The cut is at a slope of 45° as in the paper; the released code cuts at 1/2, which
`slope` sets. The released code also computes the cut differently, at the nearest point of a central
difference, and keeps the patch there (`cut: released`, spirl/select.py). The paper's text allows
both.

Expect 162,432 + 628,160 + 64 + 128 = 790,784 parameters at the defaults. After the paper's training
33 to 51 of 144 patches are salient on Frostbite, 39.9 on average (bench/measured/
ratio-frostbite.json); `max_ratio` allows 50. On 32 frames of a random policy, every
tenth of 320, the committed weights select 34 to 48 by our cut and 36 to 48 by the released one: 0
to 2 more a frame, in 31 of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.checked import (
    Count,
    Depth,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Range,
    Width,
)
from pretrain import encoder
from pretrain.encoder import Kind, Obs, Shape, check_image, passes
from pretrain.figures import heat_map, line_chart, outline, picture, tint
from pretrain.images import channels_first
from pretrain.modules import autoencoder
from pretrain.modules.maps import unit_range
from pretrain.modules.vit import MaskedViT, normalise, unpatchify
from pretrain.schedule import noise
from pretrain.spirl import select
from pretrain.spirl.error_cache import ErrorCache
from pretrain.spirl.error_map import error_map, reconstruct_centres
from pretrain.spirl.select import Cut

FIXED_SHARES = (0.1, 0.5)  # of all patches, for the panels with a fixed number (Fig. 3)


@dataclass(frozen=True)
class Config(encoder.EncoderConfig):
    """Network (Table 4) and training (Table 5). The rate is `base_lr` x `batch_size` / 256."""

    patch: Width = 8
    dim: Width = 64
    depth: Depth = 3
    heads: Width = 4
    decoder_dim: Width = 128
    decoder_depth: Depth = 3
    decoder_heads: Width = 8
    mask: Fraction = 0.75
    epochs: Count = 50
    batch_size: Count = 64
    base_lr: NonNegative = 1e-3
    warmup_epochs: Natural = 5  # all epochs if there are fewer
    weight_decay: NonNegative = 0.05
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    seed: Natural = 0

    learns = True

    def rules(self) -> Iterator[str]:
        """The rules of all masked autoencoders."""
        return autoencoder.rules(self)


@dataclass(frozen=True)
class Features(encoder.EncoderFeatures):
    """Which patches a policy gets: a `dynamic` number, a `fixed` one, or `all`."""

    select: Literal["dynamic", "fixed", "all"] = "dynamic"
    slope: Positive = 1.0  # of the Lorenz curve at the cut; 1 is 45 degrees
    cut: Cut = "slope"  # or `released`, the cut of the authors' code
    max_ratio: Annotated[float, Range(0, 1, open=True)] = 0.35  # of all patches; Appendix B.5
    k: Count | None = None  # for `fixed`; by default as many as `max_ratio` allows

    def rules(self) -> Iterator[str]:
        """`k` is for `select: fixed` only."""
        if self.k is not None and self.select != "fixed":
            yield f"k: {self.k}, must be left out unless select is fixed"

    @property
    def kind(self) -> Kind:
        """Tokens, one a selected patch."""
        return "tokens"

    def tokens(self, patches: int) -> int:
        """The number of tokens for a frame of `patches`. Raises ValueError for none or too many."""
        if self.select == "all":
            return patches
        if self.k is not None:
            if self.k > patches:
                raise ValueError(f"k: {self.k}, but a frame has {patches} patches")
            return self.k
        count = int(patches * self.max_ratio + 1e-9)  # 100 x 0.29 is 28.999...
        if count < 1:
            raise ValueError(f"max_ratio: {self.max_ratio} of {patches} patches is less than one")
        return count


def network(config: Config, image_shape: tuple[int, int, int]) -> MaskedViT:
    """The autoencoder that `config` describes, not initialised."""
    return MaskedViT(
        image_shape,
        config.patch,
        dim=config.dim,
        depth=config.depth,
        heads=config.heads,
        decoder_dim=config.decoder_dim,
        decoder_depth=config.decoder_depth,
        decoder_heads=config.decoder_heads,
    )


class Encoder(encoder.Encoder):
    """(B, C, H, W) uint8 -> tokens of the salient patches: {"x", "mask", "pos"}, `max_tokens` rows
    a frame.

    Raises FoveaError or ValueError if patch or features do not fit the image.
    """

    labels = True
    selects = True

    def __init__(self, config: Config, features: Features, image_shape: Shape) -> None:
        super().__init__(config, features, image_shape)
        self.model = network(config, image_shape)
        self.max_tokens = features.tokens(self.model.patches)
        self.dim = config.dim
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Obs:
        """Tokens obs, computed in `passes`."""
        check_image(image, self.image_shape)
        if self.features.select == "all":  # errors are not used
            error = image.new_zeros(image.shape[0], self.model.patches, dtype=torch.float32)
        else:
            error = self.errors(image)
        parts = [self._tokens(*part) for part in zip(passes(image), passes(error), strict=True)]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def errors(self, image: Tensor) -> Tensor:
        """The reconstruction error map: (B, C, H, W) uint8 -> (B, N) float32."""
        if image.device.type == "cpu" and not torch.compiler.is_exporting():
            return self.cache(image)
        return torch.cat([error_map(self.model, part) for part in passes(image)])

    def saliency_map(self, image: Tensor) -> Tensor:
        """The error map as (B, 1, H, W) float32, stretched to 0..1 frame by frame."""
        check_image(image, self.image_shape)
        blocks = self.errors(image).view(-1, 1, *self.model.grid)
        return F.interpolate(unit_range(blocks), scale_factor=self.config.patch, mode="nearest")

    @cached_property
    def cache(self) -> ErrorCache:
        """The cache of this encoder's errors."""
        return ErrorCache(self.model)

    def share(self, folder: Path) -> None:
        """Share the errors, through files in `folder`, with other processes on a CPU."""
        self.cache.share(folder)

    def _select(self, error: Tensor) -> tuple[Tensor, Tensor]:
        """Index and mask of the selected patches, by the error maps (B, N)."""
        if self.features.select == "all":
            return select.every(error.shape[0], self.model.patches, error.device)
        if self.features.select == "fixed":
            return select.fixed(error, self.max_tokens)
        return select.dynamic(error, self.features.slope, self.max_tokens, self.features.cut)

    def _tokens(self, image: Tensor, error: Tensor) -> Obs:
        index, mask = self._select(error)
        patches = self.model.to_patches(image)
        selection = patches.gather(1, index[..., None].expand(-1, -1, patches.shape[2]))
        latent = self.model.encode(self.model.embed(selection, index), mask)[:, 1:]
        x = (latent + self.model.positions[index]).masked_fill(~mask[..., None], 0)
        # A map with NaN or infinite errors makes the tokens NaN: its patches still have an order,
        # and the tokens would look sound.
        x = x + (0 * error.sum(1))[:, None, None]
        return {"x": x, "mask": mask, "pos": index}

    def salient(self, image: Tensor) -> list[int]:
        """The patches of one frame (1, C, H, W) uint8 that a dynamic K selects without a limit."""
        index, mask = select.dynamic(
            self.errors(image), self.features.slope, self.model.patches, self.features.cut
        )
        patches: list[int] = index[mask].tolist()
        return patches

    def panels(self, image: Tensor) -> dict[str, NDArray[np.uint8]]:
        """SPIRL's Figs. 2, 3 and 4 (its own column) of one frame (1, C, H, W) uint8: caption ->
        picture (H, W, 3).

        The network predicts patches normalised by their own mean and deviation. In the pictures the
        mean is grey, and one deviation is a quarter of the range.
        """
        model, side = self.model, self.config.patch
        patches = model.to_patches(image)
        original = picture(image[0])
        error, salient = self.errors(image), self.salient(image)
        fixed = {
            f"fixed {100 * share:.0f} %: {k} (Fig. 3)": outline(
                original, select.fixed(error, k)[0][0].tolist(), side
            )
            for share, k in (
                (share, max(1, round(share * model.patches))) for share in FIXED_SHARES
            )
        }
        order = noise(self.config.seed, 0).permutation(model.patches)
        visible = torch.from_numpy(order[: round(model.patches * (1 - self.config.mask))])[None]
        visible_only = torch.full_like(patches, 0.5)
        visible_only[:, visible[0]] = patches[:, visible[0]]
        none = torch.zeros_like(patches[..., 0], dtype=torch.int64)
        blank = model.place(model.encode(model.embed(patches[:, :0], none[:, :0])), none)
        mask_only = blank - model.decoder_positions
        positions_only = torch.cat([blank[:, :1], blank[:, 1:] - model.mask_token], dim=1)
        reconstruction = partial(self._picture, normalised=True)
        return {
            "frame": original,
            "frame, normalised": reconstruction(normalise(patches)),
            "from neighbours (Fig. 2)": reconstruction(reconstruct_centres(model, patches)),
            "error map (Fig. 2)": heat_map(self.saliency_map(image)[0, 0].cpu().numpy()),
            "mask and position (Fig. 2)": reconstruction(model.decode(blank)),
            "position only (Fig. 2)": reconstruction(model.decode(positions_only)),
            "mask only (Fig. 2)": reconstruction(model.decode(mask_only)),
            f"visible patches ({100 * (1 - self.config.mask):.0f} %)": self._picture(
                visible_only, normalised=False
            ),
            "reconstruction": reconstruction(model(patches, visible.to(image.device))),
            "errors summed (Fig. 3)": line_chart(
                select.lorenz(error)[0].cpu().numpy(), len(salient), original
            ),
            f"dynamic K: {len(salient)} (Fig. 3)": outline(original, salient, side),
            **fixed,
            "salient (Figs. 4, 7)": tint(original, salient, side),
        }

    def _picture(self, patches: Tensor, *, normalised: bool) -> NDArray[np.uint8]:
        pixels = unpatchify(patches, self.config.patch, self.model.image_shape)[0]
        pixels = 0.5 + pixels / 4 if normalised else pixels
        return picture((pixels.clamp(0, 1) * 255).round().byte())


class Pretraining(encoder.EncoderTraining):
    """Reconstructs a frame from its visible patches; the loss is over all patches."""

    def __init__(self, config: Config, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.config = config
        self.model = network(config, image_shape)
        self.model.initialise(config.seed)
        self._visible_count = max(1, round(self.model.patches * (1 - config.mask)))

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """Mean squared error over normalised pixels; batch: image (B, H, W, C) uint8 and step."""
        patches = self.model.to_patches(channels_first(batch["image"]))
        visible = self._visible(len(patches), batch["step"], batch["share"])
        predicted = self.model(patches, visible.to(patches.device))
        return F.mse_loss(predicted.float(), normalise(patches))

    def _visible(self, batch: int, step: int, share: slice) -> Tensor:
        """Each frame's visible patches (B, K), by this process's share of the step's noise."""
        whole = (batch * (share.step or 1), self.model.patches)
        scores = noise(self.config.seed, step).random(whole, np.float32)
        return torch.from_numpy(scores[share]).argsort(dim=1)[:, : self._visible_count]

    def optimizer(
        self, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """AdamW with a linear warm-up and half a cosine, set at every step."""
        return autoencoder.optimizer(self, self.config, steps)

    def encoder(
        self, features: Features | None = None, saliency: nn.Module | None = None
    ) -> Encoder:
        """The frozen encoder with the current weights."""
        shape = self.model.image_shape
        encoder = Encoder(self.config, Features() if features is None else features, shape)
        encoder.model.load_state_dict(self.model.state_dict())
        return encoder
