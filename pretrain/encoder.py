"""The contracts of `pretrain/`: encoders, sources of saliency, and their optional capabilities.

Every capability beyond the forward pass is declared here once, with the default of a component that
lacks it, so no caller needs `hasattr`. `frozen.py` saves and loads components.

A file of `encoders/` exports `Config`, `Features` and `Encoder`, and `Pretraining` if it is
trained. A file of `saliency/` exports `Config` and `Saliency`, and `Training` if it is trained on
maps, else `fit(config, images)`. Its docstring names its paper.
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

GPU_FRAMES = 64  # in one pass

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
    """An encoder's cache of results. It saves time, and no result depends on it."""

    hits: int
    misses: int

    @property
    def nbytes(self) -> int:
        """An upper bound of its size in bytes."""
        ...


class Component(nn.Module):
    """A frozen module that is saved as an artifact."""

    config: Any
    image_shape: Shape | None

    @staticmethod
    def upgrade(header: Header, weights: Weights) -> tuple[Header, Weights]:
        """The `config.json` and weights of an older version of this component, in today's form.

        A component overrides it when a key or a weight changes its name or meaning, so that old
        artifacts keep loading. Both are copies, without those of a source of saliency inside.
        """
        return header, weights


class EncoderConfig(Checked):
    """Base of an encoder's `Config`: network and training, a frozen dataclass."""

    learns: ClassVar[bool] = False  # the file exports `Pretraining`

    @property
    def pair_gap(self) -> int:
        """The largest gap, in steps, between two frames of a training pair; 0 for single frames."""
        return 0

    @property
    def gradient_norm(self) -> float | None:
        """The norm to which the gradient of a training step is clipped; None for no clipping."""
        return None

    @property
    def own_keypoints(self) -> int | None:
        """The number of keypoints that it learns; None if they are those of its saliency map."""
        return None

    @property
    def needs_saliency(self) -> bool:
        """Whether the encoder carries a source of saliency, and its training gets maps."""
        return False


class EncoderFeatures(Checked):
    """Base of an encoder's `Features`: the features that a policy gets, a frozen dataclass."""

    @property
    def kind(self) -> Kind:
        """The kind of its Obs, by which an agent chooses a net."""
        raise NotImplementedError


class Encoder(Component):
    """Base of encoders, frozen and deterministic: (B, C, H, W) uint8 -> Obs, on its own device.

    It includes normalisation and any source of saliency.

    Attributes:
        image_shape: of the input images; None for any.
        saliency: the source of saliency that it carries, a part of its weights.
        max_tokens, dim: N and D of tokens; 0 for other features.
        info: the entry of an environment's info that is its input in place of the image.
        any_image: class-wide, whether `image_shape` may be None.
        labels: class-wide, whether it has a `saliency_map` of its own.
        selects: class-wide, whether its tokens are selected patches of the frame.
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
        """Set the source of saliency, if the Config needs one. Raises ValueError if it is None."""
        if self.config.needs_saliency:
            if saliency is None:
                raise ValueError("saliency: is None, but the Config needs a source")
            self.saliency = saliency

    if TYPE_CHECKING:

        def __call__(self, image: Tensor) -> Obs:
            """As `forward`."""

    def forward(self, image: Tensor) -> Obs:
        """The features of each frame."""
        raise NotImplementedError

    def blank(self, image_shape: Shape | None = None) -> Tensor:
        """An all-zero input of one frame; an encoder of any shape needs `image_shape`."""
        shape = self.image_shape or image_shape
        if shape is None:
            raise ValueError("image_shape: is None, but an encoder of any shape needs one")
        return torch.zeros(1, *shape, dtype=torch.uint8)

    def saliency_map(self, image: Tensor) -> Tensor | None:
        """(B, C, H, W) uint8 -> (B, 1, H, W) float32 in [0, 1]: its own map, or that of the source
        that it carries; None if it has neither.
        """
        return None if self.saliency is None else self.saliency(image)

    def salient(self, image: Tensor) -> list[int] | None:
        """The patches of one frame (1, C, H, W) uint8 that it selects without a limit on their
        number; None if it does not select.
        """
        return None

    def keypoints(self, image: Tensor) -> Tensor | None:
        """The keypoints (B, K, 2), (x, y) in -1 to 1, of a method that learns them; None for
        others, whose keypoints are the peaks of their saliency map.
        """
        return None

    def panels(self, image: Tensor) -> dict[str, Picture]:
        """Figures of how it encodes one frame (1, C, H, W) uint8: caption -> picture."""
        return {}

    @property
    def cache(self) -> Cache | None:
        """Its cache of results, if it has one."""
        return None

    def share(self, folder: Path) -> None:
        """Share the cache, if any, through files with other processes that use this encoder."""


class EncoderTraining(nn.Module):
    """Base of `Pretraining`: a `trainer.Method` that trains an encoder."""

    def encoder(self, features: Any = None, saliency: nn.Module | None = None) -> Encoder:
        """The frozen encoder with the current weights, and the source that it carries."""
        raise NotImplementedError

    def panels(self, batch: Mapping[str, Any]) -> dict[str, Picture]:
        """Figures of a batch of one frame: caption -> picture; if empty, the encoder's are used."""
        return {}


class SaliencyConfig(Checked):
    """Base of a saliency source's `Config`, a frozen dataclass."""

    learns: ClassVar[bool] = False  # from maps: the file exports `Training`, else `fit`


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
        sizes = "C, H, W" if image_shape is None else ", ".join(map(str, image_shape))
        raise ValueError(
            f"image: must be uint8 (B, {sizes}), is {image.dtype} {tuple(image.shape)}"
        )


def passes(image: Tensor) -> tuple[Tensor, ...]:
    """A batch in parts that fit the processor's cache: on a CPU frame by frame, so that a frame's
    result does not depend on the rest of its batch. An exported program makes one pass.
    """
    if torch.compiler.is_exporting():
        return (image,)
    return torch.split(image, 1 if image.device.type == "cpu" else GPU_FRAMES)
