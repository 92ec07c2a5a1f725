"""ViSaRL's encoder: one transformer over the patches of a frame and of its saliency map.

Liang, Thomason and Bıyık, "ViSaRL: Visual Reinforcement Learning Guided by Human Saliency" (2024),
§II-C and D and Table II, on Bachmann et al.'s MultiMAE (ECCV 2022). Of the 2 x 64 patches of 8 x 8
32 are visible, split between the two modalities at random. It reconstructs all others, so that each
modality is predicted from the other. Once frozen, it encodes all patches, and the policy gets the
mean of its tokens. The encoder carries the source of its saliency maps: pixels in, features out.

Differs from the released code: positions are computed on the actual grid, not resized from 28 x 28;
the mean over processes and samples is exact; crops are bilinear. Where the sources are unclear: the
saliency loss is the paper's weighted squared error, 1 / (1.05 - saliency), the only one its authors
state; epochs are 200 as in the table, where the text says 400. When acting, maps are not rounded to
8 bits as the stored maps of pretraining are, so they differ by up to 1/510. Rounding would turn the
last bit of a float into a step of 1/255.

Expect 13,018,816 parameters in pretraining, 9,743,360 without `norm_rgb` and 9,759,104 with RGB
alone, of which 3,225,344 (RGB alone 3,208,704) stay in the encoder; Table I: success over four
tasks 0.7025 (printed as 0.65), 0.47 with RGB alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from datasets.checked import Count, Depth, Fraction, Natural, NonNegative, Width
from datasets.errors import FoveaError
from pretrain import encoder
from pretrain.encoder import Kind, Obs, Shape, check_image, passes
from pretrain.figures import heat_map
from pretrain.images import channels_first
from pretrain.modules import autoencoder
from pretrain.modules.multimodal_vit import Decoder, Modality, MultiViT, initialise
from pretrain.modules.vit import normalise, unpatchify
from pretrain.schedule import noise
from pretrain.transforms import crops
from pretrain.transforms import token_masking as budgets

MODALITIES = {
    "rgb": Modality(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "saliency": Modality((0.0,), (1.0,)),
}
RGB_SHARES = (0.875, 0.5, 0.125)  # of the visible patches, in the panels
MASKED_GREY = 255  # grey level of masked patches, in the panels


@dataclass(frozen=True)
class Config(encoder.EncoderConfig):
    """Network and training (Table II). The rate is `base_lr` x `batch_size` / 256."""

    modalities: Literal["rgb", "rgb+saliency"] = "rgb+saliency"
    norm_rgb: bool = True  # a third decoder reconstructs RGB with each patch standardised
    patch: Width = 8
    dim: Width = 256
    depth: Depth = 4
    heads: Width = 4
    decoder_dim: Width = 256
    decoder_depth: Depth = 3
    decoder_heads: Width = 4
    mask: Fraction = 0.75  # of all patches of all modalities
    epochs: Count = 200
    batch_size: Count = 512
    base_lr: NonNegative = 1e-4
    warmup_epochs: Natural = 40  # all epochs if there are fewer
    weight_decay: NonNegative = 0.05
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    seed: Natural = 0

    learns = True

    def rules(self) -> Iterator[str]:
        """The rules of all masked autoencoders."""
        return autoencoder.rules(self)

    @property
    def needs_saliency(self) -> bool:
        """Whether it is trained on maps, and the encoder carries their source."""
        return self.modalities == "rgb+saliency"


@dataclass(frozen=True)
class Features(encoder.EncoderFeatures):
    """The features: the `mean` of all tokens, the `global` token, or all of them (`none`),
    to which its net attends (rl/nets/tokens.py). All tokens make the replay much larger: 65 KB a
    step instead of 0.5 at 64 pixels; `replay_capacity` bounds it.

    Without `use_saliency` an encoder trained on both gets the frame alone (ViSaRL's PO); one of RGB
    alone always does. With `none`, `pos` numbers RGB's patches, then those of saliency, then the
    global token.
    """

    pool: Literal["mean", "global", "none"] = "mean"
    use_saliency: bool = True

    @property
    def kind(self) -> Kind:
        """One vector a frame, unless `pool` is `none`."""
        return "tokens" if self.pool == "none" else "vector"


def network(config: Config, image_shape: tuple[int, int, int]) -> MultiViT:
    """The encoder of the network that `config` describes, not initialised."""
    channels, height, width = image_shape
    if channels != 3:
        raise FoveaError(f"model: multimae takes RGB, not images of {channels} channel(s)")
    return MultiViT(
        (height, width),
        config.patch,
        {name: MODALITIES[name] for name in config.modalities.split("+")},
        dim=config.dim,
        depth=config.depth,
        heads=config.heads,
    )


class Encoder(encoder.Encoder):
    """(B, 3, H, W) uint8 -> tokens, one a frame unless `pool: none`; `saliency` is the source of
    maps that it carries, (B, 3, H, W) uint8 -> (B, 1, H, W) float32.

    Raises FoveaError or ValueError if patch or features do not fit the image.
    """

    def __init__(
        self,
        config: Config,
        features: Features,
        image_shape: Shape,
        saliency: nn.Module | None = None,
    ) -> None:
        super().__init__(config, features, image_shape)
        self.model = network(config, image_shape)
        self.carry(saliency)
        self.uses_saliency = config.needs_saliency and features.use_saliency
        tokens = self.model.patches * (1 + self.uses_saliency) + 1
        self.max_tokens = tokens if features.pool == "none" else 1
        self.dim = config.dim
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Obs:
        """Tokens obs, computed in `passes`."""
        check_image(image, self.image_shape)
        parts = [self._tokens(part) for part in passes(image)]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def _tokens(self, image: Tensor) -> Obs:
        inputs = {"rgb": image.float() / 255}
        if self.uses_saliency and self.saliency is not None:
            inputs["saliency"] = self.saliency(image)
        patches = {name: self.model.to_patches(name, pixels) for name, pixels in inputs.items()}
        x = self.model.encode(self.model.embed(patches))
        if self.features.pool == "mean":
            x = x.mean(1, keepdim=True)
        elif self.features.pool == "global":
            x = x[:, -1:]
        pos = torch.arange(self.max_tokens, device=x.device).expand(x.shape[0], -1).clone()
        return {"x": x, "mask": torch.ones_like(pos, dtype=torch.bool), "pos": pos}


class Pretraining(encoder.EncoderTraining):
    """Reconstructs the masked patches of every modality from the visible ones of all."""

    def __init__(self, config: Config, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.config, self.image_shape = config, image_shape
        self.model = network(config, image_shape)
        self._names = list(self.model.pixels)
        self._sizes = len(self._names), self.model.patches  # M modalities of N patches
        self._visible = max(1, round(len(self._names) * self.model.patches * (1 - config.mask)))
        self._target_of = {name: name for name in self._names}  # decoder -> modality
        if config.norm_rgb:
            self._target_of["norm_rgb"] = "rgb"
        dim, depth, heads = config.decoder_dim, config.decoder_depth, config.decoder_heads
        self.decoders = nn.ModuleDict()
        for decoder, name in self._target_of.items():
            self.decoders[decoder] = Decoder(self.model, name, dim=dim, depth=depth, heads=heads)
        initialise(self, config.seed)

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """The decoders' losses, summed; batch: image (B, H, W, 3) uint8, saliency (B, H, W) uint8
        where it is a modality, step and share.

        Each is the mean over a frame's hidden patches, then over those frames of the whole batch,
        in all processes, that have hidden patches.
        """
        share = batch["share"]
        processes = share.step or 1
        whole = len(batch["image"]) * processes
        rng = noise(self.config.seed, batch["step"])
        boxes = torch.from_numpy(crops.boxes(rng, whole, self.model.size)[share])
        mirrored = torch.from_numpy(rng.random(whole)[share] < 0.5)
        images = crops.crop(self._images(batch), boxes, mirrored)
        return self.loss_of(images, budgets.sample(rng, whole, *self._sizes, self._visible), share)

    def loss_of(
        self, images: Tensor, keep: budgets.Tokens, share: slice = slice(0, None, 1)
    ) -> Tensor:
        """The loss of images (B, 3 or 4, H, W) in [0, 1], this process's share of a batch; `keep`
        are the visible tokens of the whole batch.
        """
        patches = self.patches(images)
        hidden = budgets.hidden(keep, *self._sizes)
        count = hidden.sum(-1, keepdims=True)  # (B, M, 1)
        weights = hidden * (share.step or 1) / count.clip(1) / (count > 0).sum(0).clip(1)
        losses = []
        for decoder, (rows, pixels) in self._reconstruct(
            patches, keep[share], hidden[share]
        ).items():
            name = self._target_of[decoder]
            target = patches[name].flatten(0, 1)[rows]
            if decoder == "norm_rgb":
                target = normalise(target)
            error = (pixels.float() - target).square()
            if decoder == "saliency":
                error = error / (1.05 - target)
            weight = weights[share, self._names.index(name)].ravel()
            weight = torch.from_numpy(weight).to(error)[rows]
            losses.append((error.mean(1) * weight).sum())
        return torch.stack(losses).sum()

    def _images(self, batch: Mapping[str, Any]) -> Tensor:
        """The frame and its map, stacked: (B, 3 or 4, H, W) in [0, 1]."""
        planes = [batch["image"]]
        if self.config.needs_saliency:
            planes.append(batch["saliency"][..., None])
        return channels_first(torch.cat(planes, dim=-1)).float() / 255

    def patches(self, images: Tensor) -> dict[str, Tensor]:
        """Modality -> its patches (B, N, pixels)."""
        planes = torch.split(images, [len(MODALITIES[name].mean) for name in self._names], dim=1)
        parts = zip(self._names, planes, strict=True)
        return {name: self.model.to_patches(name, plane) for name, plane in parts}

    def _reconstruct(
        self, patches: Mapping[str, Tensor], keep: budgets.Tokens, targets: NDArray[np.bool_]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Decoder -> the rows (R,) of all B * N patches that are in `targets` (B, M, N), and their
        reconstruction (R, pixels) from the tokens `keep` (B, K) alone.
        """
        tokens = self.model.embed(patches)
        index = torch.from_numpy(keep).to(tokens.device)
        visible = tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))
        latent = self.model.encode(visible)
        places = torch.from_numpy(budgets.places(keep, *self._sizes)).to(tokens.device)
        reconstructions = {}
        for name, decoder in self.decoders.items():
            m = self._names.index(self._target_of[name])
            rows = torch.from_numpy(np.flatnonzero(targets[:, m])).to(tokens.device)
            reconstructions[name] = rows, decoder(latent, index, places[:, m], rows)
        return reconstructions

    def optimizer(
        self, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """AdamW with a linear warm-up and half a cosine, set at every step."""
        return autoencoder.optimizer(self, self.config, steps)

    def encoder(
        self, features: Features | None = None, saliency: nn.Module | None = None
    ) -> Encoder:
        """The frozen encoder with the current weights, and the source that it carries."""
        features = Features() if features is None else features
        encoder = Encoder(self.config, features, self.image_shape, saliency)
        encoder.model.load_state_dict(self.model.state_dict())
        return encoder

    @torch.no_grad()
    def panels(self, batch: Mapping[str, Any]) -> dict[str, NDArray[np.uint8]]:
        """Fig. 6 for a batch of one frame and three budgets: the visible patches, and the
        reconstruction of the others beside them: caption -> picture (H, W, 3).
        """
        patches = self.patches(self._images(batch).to(self.model.positions.device))
        rows = {name: {name: self._picture(name, whole)} for name, whole in patches.items()}
        for number, rgb in enumerate(RGB_SHARES if self.config.needs_saliency else (1.0,) * 3):
            shares = np.array([[rgb, 1 - rgb]])[:, : len(self._names)]
            rng = noise(self.config.seed, number)
            keep = budgets.pick(rng, shares, self.model.patches, self._visible)
            hidden = budgets.hidden(keep, *self._sizes)
            reconstructions = self._reconstruct(patches, keep, np.ones_like(hidden))
            for m, (name, whole) in enumerate(patches.items()):
                masked = torch.from_numpy(hidden[:, m, :, None]).to(whole.device)
                rows[name] |= {
                    f"{name} {number + 1}: {self.model.patches - hidden[0, m].sum()} visible": (
                        self._picture(name, whole.masked_fill(masked, torch.nan))
                    ),
                    f"{name} {number + 1}: reconstruction": (
                        self._picture(name, torch.where(masked, reconstructions[name][1], whole))
                    ),
                }
        return {caption: picture for row in rows.values() for caption, picture in row.items()}

    def _picture(self, name: str, patches: Tensor) -> NDArray[np.uint8]:
        """Patches (1, N, pixels) as a picture, NaN white; saliency in colour, as in the paper."""
        rows, (height, width) = self.model.to_pixels(name, patches), self.model.size
        shape = len(MODALITIES[name].mean), height, width
        image = unpatchify(rows, self.config.patch, shape)[0].permute(1, 2, 0)
        pixels: NDArray[np.float32] = image.clamp(0, 1).cpu().numpy()
        missing, values = np.isnan(pixels[..., :1]), np.nan_to_num(pixels)
        colours = heat_map(values[..., 0]) if name == "saliency" else (values * 255).round()
        return np.where(missing, MASKED_GREY, colours).astype(np.uint8)
