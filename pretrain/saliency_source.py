"""Sources of saliency on disk: opens any artifact that can say where to look."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from datasets.errors import FoveaError
from pretrain import store
from pretrain.encoder import FORMAT as ENCODER_FORMAT
from pretrain.encoder import SaliencySource, load_encoder

FORMAT = "fovea-saliency/1"


def unit_range(values: Tensor) -> Tensor:
    """Each map (B, 1, h, w) moved and stretched to [0, 1]; a flat one becomes zero."""
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    return (values - low) / (high - low).clamp_min(torch.finfo(values.dtype).tiny)


def save_saliency(source: SaliencySource, folder: Path) -> None:
    """Write a source of `pretrain/saliency/`: `model.safetensors` and `config.json`."""
    module = cast(Any, source)
    header = store.header(
        FORMAT, module, image_shape=list(module.image_shape), config=module.config
    )
    store.save_module(module, folder, header)


def load_saliency(folder: Path | str, *, device: str = "cpu") -> SaliencySource:
    """The saliency source of an artifact folder: a predictor, or an encoder that can label.

    Raises FileNotFoundError or FoveaError naming the file that is missing, damaged, foreign or no
    source of saliency.
    """
    folder = Path(folder)
    header = store.read_header(folder)
    source = folder / store.CONFIG
    if header.get("format") == ENCODER_FORMAT:
        encoder = load_encoder(folder, device=device)
        if not hasattr(encoder, "saliency"):
            raise FoveaError(
                f"{source}: an encoder of model {header['model']!r} cannot say where to look; "
                "name one that can, such as mae"
            )
        return cast(SaliencySource, encoder.saliency)
    if header.get("format") != FORMAT:
        raise FoveaError(
            f"{source}: format is {header.get('format')!r}, not {FORMAT!r} or {ENCODER_FORMAT!r}; "
            "give the folder of a predictor or an encoder"
        )
    word = store.word_module("pretrain.saliency", header.get("model"), source)
    config = store.build(word.Config, header.get("config"), source)
    module: nn.Module = word.Saliency(config, store.image_shape_of(header, folder))
    store.load_weights(module, folder)
    return cast(SaliencySource, module.to(device))
