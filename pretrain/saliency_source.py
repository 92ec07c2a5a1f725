"""Sources of saliency on disk: opens any artifact that can say where to look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from datasets.errors import FoveaError
from pretrain import encoder, store
from pretrain.encoder import SaliencySource

FORMAT = "fovea-saliency/1"


def unit_range(values: Tensor) -> Tensor:
    """Each map (B, 1, h, w) moved and stretched to [0, 1]; a flat one becomes zero."""
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    return (values - low) / (high - low).clamp_min(torch.finfo(values.dtype).tiny)


class OfEncoder(nn.Module):
    """Where an encoder that can label says to look."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        """The encoder's own map."""
        found: Tensor = cast(Any, self.encoder).saliency(image)
        return found


def header_of(source: nn.Module) -> dict[str, object]:
    """All that a source is but its weights."""
    if isinstance(source, OfEncoder):
        return encoder.header_of(source.encoder)
    module = cast(Any, source)
    return store.header(FORMAT, source, image_shape=list(module.image_shape), config=module.config)


def build_source(header: Any, folder: Path) -> nn.Module:
    """The source that a header describes, its weights not filled in; `folder` is named in errors.

    Raises FoveaError where it describes none.
    """
    path = folder / store.CONFIG
    form = header.get("format") if isinstance(header, Mapping) else header
    if form == encoder.FORMAT:
        built = encoder.build_encoder(header, folder)
        if not hasattr(built, "saliency"):
            raise FoveaError(
                f"{path}: an encoder of model {header['model']!r} cannot say where to look; "
                "name one that can, such as mae"
            )
        return OfEncoder(built)
    if form != FORMAT:
        raise FoveaError(
            f"{path}: format is {form!r}, not {FORMAT!r} or {encoder.FORMAT!r}; "
            "give the folder of a predictor or an encoder"
        )
    word = store.word_module("pretrain.saliency", header.get("model"), path)
    config = store.build(word.Config, header.get("config"), path)
    module: nn.Module = word.Saliency(config, store.image_shape_of(header, folder))
    return module.requires_grad_(False).eval()


def bump(height: int, width: int, sigma: float) -> Tensor:
    """(height, width): a Gaussian about the middle, 1 there; `sigma` is in widths of each side."""

    def falloff(size: int) -> Tensor:
        offset = (torch.arange(size) - (size - 1) / 2) / (sigma * size)
        return (-offset.square() / 2).exp()

    return falloff(height)[:, None] * falloff(width)


def save_saliency(source: SaliencySource, folder: Path) -> None:
    """Write a source of `pretrain/saliency/`: `model.safetensors` and `config.json`."""
    module = cast(nn.Module, source)
    store.save_module(module, folder, header_of(module))


def load_saliency(folder: Path | str, *, device: str = "cpu") -> nn.Module:
    """The saliency source of an artifact folder: a predictor, or an encoder that can label.

    Raises FileNotFoundError or FoveaError naming the file that is missing, damaged, foreign or no
    source of saliency.
    """
    folder = Path(folder)
    source = build_source(store.read_header(folder), folder)
    store.load_weights(source.encoder if isinstance(source, OfEncoder) else source, folder)
    return source.to(device)
