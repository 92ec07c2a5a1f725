"""The contracts of `pretrain/`: what an encoder and a source of saliency are, and may offer.

Whatever a component can do beyond its forward pass is declared here once, with the default of one
that cannot: nobody asks with `hasattr`. How components are kept on disk is in `frozen.py`.

A file of `encoders/` exports `Config`, `Features` and `Encoder`, and `Pretraining` where it learns.
A file of `saliency/` exports `Config` and `Saliency`, and `Training` where it learns from maps, or
`fit(config, images)`. The docstring of one says which paper it is from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datasets.checked import Checked

GPU_FRAMES = 64  # a pass

Obs = dict[str, Tensor]
"""A batch of observations, one of these kinds:

pixels  {"image": (B, C, H, W) uint8}
tokens  {"x": (B, N, D) float32, "mask": (B, N) bool, True = real, "pos": (B, N) int64, row-major
        patch index, one modality's patches after the other's}, with N = encoder.max_tokens always;
        padded rows of x are zero, their pos 0
vector  tokens with N = 1: pooled features
masked  {"image": ..., "attention": (B, h, w) float32 in [0, 1]}
state   {"state": (B, S) float32}
"""
Kind = Literal["pixels", "tokens", "vector", "masked", "state"]
Shape = tuple[int, int, int]  # of an image: channels, height, width
Picture = NDArray[np.uint8]  # (H, W, 3)
Header = dict[str, Any]  # a `config.json`
Weights = dict[str, Tensor]  # a `model.safetensors`


class SaliencySource(Protocol):
    """A saliency model, stateless: (B, C, H, W) uint8 -> (B, 1, H, W) float32 in [0, 1]."""

    def __call__(self, image: Tensor) -> Tensor:
        """One map a frame."""
        ...


class Cache(Protocol):
    """What an encoder has computed before. No result depends on it, time does."""

    hits: int
    misses: int

    @property
    def nbytes(self) -> int:
        """What it takes at most."""
        ...


class Component(nn.Module):
    """A frozen module that an artifact holds."""

    config: Any
    image_shape: Shape | None

    @staticmethod
    def upgrade(header: Header, weights: Weights) -> tuple[Header, Weights]:
        """The `config.json` and weights of an older form of this component in today's form.

        A component overrides it when a key or a weight gets another name or meaning, so that old
        artifacts keep loading. Both are this component's alone, and copies.
        """
        return header, weights


class EncoderConfig(Checked):
    """Base of an encoder's `Config`: network and training, a frozen dataclass."""

    learns: ClassVar[bool] = False  # the file exports `Pretraining`

    @property
    def pair_gap(self) -> int:
        """How many steps the two frames of a training pair may be apart; 0: of single frames."""
        return 0

    @property
    def gradient_norm(self) -> float | None:
        """What the gradient of a training step is clipped to; None: it is not."""
        return None

    @property
    def needs_saliency(self) -> bool:
        """Whether the encoder carries a source of saliency, and any training gets its maps."""
        return False


class EncoderFeatures(Checked):
    """Base of an encoder's `Features`: what a policy gets of it, a frozen dataclass."""

    @property
    def kind(self) -> Kind:
        """The kind of its Obs, by which an agent picks a net."""
        raise NotImplementedError


class Encoder(Component):
    """Base of encoders, frozen and deterministic: (B, C, H, W) uint8 -> Obs, on its own device.

    Normalisation and any source of saliency are inside.

    Attributes:
        image_shape: of the images that it takes; None for any.
        saliency: the source that it carries, a part of its weights.
        max_tokens, dim: N and D of tokens; 0 of other features.
        info: the entry of an environment's info that it reads in place of the image.
        any_image: class-wide, whether `image_shape` may be None.
        labels: class-wide, whether `saliency_map` is a map of its own.
        selects: class-wide, whether its tokens are patches that it selects of the frame.
        uses_saliency: whether its features depend on its `saliency_map`.
    """

    max_tokens: int = 0
    dim: int = 0
    info: ClassVar[str | None] = None
    any_image: ClassVar[bool] = False
    labels: ClassVar[bool] = False
    selects: ClassVar[bool] = False
    uses_saliency: bool = True

    def __init__(
        self, config: EncoderConfig, features: EncoderFeatures, image_shape: Shape | None
    ) -> None:
        super().__init__()
        self.config: Any = config
        self.features: Any = features
        self.image_shape = image_shape
        self.saliency: nn.Module | None = None

    def carry(self, saliency: nn.Module | None) -> None:
        """Take the source of saliency that the Config needs; ValueError where there is none."""
        if self.config.needs_saliency:
            if saliency is None:
                raise ValueError("saliency: no source is given, but the Config needs one")
            self.saliency = saliency

    if TYPE_CHECKING:

        def __call__(self, image: Tensor) -> Obs:
            """As `forward`."""

    def forward(self, image: Tensor) -> Obs:
        """What a policy gets of each frame."""
        raise NotImplementedError

    def blank(self, image_shape: Shape | None = None) -> Tensor:
        """An all-zero input of one frame; `image_shape` is asked of one that takes any."""
        shape = self.image_shape or image_shape
        if shape is None:
            raise ValueError("image_shape: this encoder takes any, so one must be given")
        return torch.zeros(1, *shape, dtype=torch.uint8)

    def saliency_map(self, image: Tensor) -> Tensor | None:
        """(B, C, H, W) uint8 -> its own map, or that of the source it carries, (B, 1, H, W) float32
        in [0, 1]; None where it has neither.
        """
        return None if self.saliency is None else self.saliency(image)

    def salient(self, image: Tensor) -> list[int] | None:
        """The patches of one frame (1, C, H, W) uint8 that it selects where nothing limits their
        number; None where it does not select.
        """
        return None

    def keypoints(self, image: Tensor) -> Tensor | None:
        """Places (B, K, 2) of (x, y) in -1 to 1 of one that learns K of them; None of others, whose
        keypoints are taken from their saliency map.
        """
        return None

    def panels(self, image: Tensor) -> dict[str, Picture]:
        """Pictures of how it reads one frame (1, C, H, W) uint8, by caption."""
        return {}

    @property
    def cache(self) -> Cache | None:
        """What it has computed before, where it keeps that."""
        return None

    def share(self, folder: Path) -> None:
        """Share the cache, if any, with others that use this encoder on a CPU, through files."""


class EncoderTraining(nn.Module):
    """Base of `Pretraining`: a `trainer.Method` that an encoder comes out of."""

    def encoder(self, features: Any = None, saliency: nn.Module | None = None) -> Encoder:
        """The frozen encoder with the weights as they are now, and the source that it carries."""
        raise NotImplementedError

    def panels(self, batch: Mapping[str, Any]) -> dict[str, Picture]:
        """Pictures of a batch of one frame by caption; where there are none, the encoder's."""
        return {}


class SaliencyConfig(Checked):
    """Base of a saliency source's `Config`, a frozen dataclass."""

    learns: ClassVar[bool] = False  # from maps: the file exports `Training`, and `fit` if not


class Saliency(Component):
    """Base of the saliency sources in `pretrain/saliency/`; each is a SaliencySource."""

    image_shape: Shape

    def __init__(self, config: SaliencyConfig, image_shape: Shape) -> None:
        super().__init__()
        self.config: Any = config
        self.image_shape = image_shape

    if TYPE_CHECKING:

        def __call__(self, image: Tensor) -> Tensor:
            """As `forward`."""


def check_image(image: Tensor, image_shape: Shape | None) -> None:
    """Raise ValueError unless `image` is a uint8 batch of that shape, or of any for None."""
    shape = image.shape[1:] if image_shape is None else image_shape
    if image.dtype != torch.uint8 or image.ndim != 4 or tuple(image.shape[1:]) != tuple(shape):
        wanted = "C, H, W" if image_shape is None else ", ".join(map(str, image_shape))
        raise ValueError(f"image: wants uint8 (B, {wanted}), is {image.dtype} {tuple(image.shape)}")


def passes(image: Tensor) -> tuple[Tensor, ...]:
    """A batch in parts that fit the cache: on a CPU frame by frame, so that a frame's result never
    depends on its company. An exported program makes one pass.
    """
    if torch.compiler.is_exporting():
        return (image,)
    return torch.split(image, 1 if image.device.type == "cpu" else GPU_FRAMES)
