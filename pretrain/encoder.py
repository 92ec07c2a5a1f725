"""What an encoder is, and how one is kept: pixels in, features out, frozen.

An artifact is complete: normalisation and whatever picks the patches are inside. Fovea reads its
`model.safetensors` and `config.json`; the `torch.export` program beside them is for processes that
have never seen this repository.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from datasets.errors import FoveaError
from datasets.files import write_atomic
from pretrain import store

FORMAT = "fovea-encoder/1"
GPU_FRAMES = 64  # a pass

Obs = dict[str, Tensor]
"""A batch of observations, one of these kinds:

pixels  {"image": (B, C, H, W) uint8}
tokens  {"x": (B, N, D) float32, "mask": (B, N) bool, True = real, "pos": (B, N) int64, row-major
        patch index, one modality's patches after the other's}, with N = encoder.max_tokens always;
        padded rows of x are zero, their pos 0
masked  {"image": ..., "attention": (B, h, w) float32 in [0, 1]}
pooled features are tokens with N = 1; state {"state": (B, S) float32}
"""


class SaliencySource(Protocol):
    """Says where to look: (B, 3, H, W) uint8 -> (B, 1, H, W) float32 in [0, 1]."""

    def __call__(self, image: Tensor) -> Tensor:
        """One map a frame."""


class Encoder(Protocol):
    """Frozen and deterministic: (B, C, H, W) uint8 -> Obs, on the device it was loaded to.

    One that looks at saliency carries the source of it as its module `saliency`. Its Config's
    `needs_saliency` says so, and its constructor takes the source last.
    """

    image_shape: tuple[int, int, int]
    max_tokens: int  # 0 where the features are not tokens
    dim: int  # numbers a token; 0 likewise

    def __call__(self, image: Tensor) -> Obs:
        """What a policy gets of each frame."""


def check_image(image: Tensor, image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless `image` is a uint8 batch of the shape an encoder was made for."""
    if image.dtype != torch.uint8 or image.ndim != 4 or tuple(image.shape[1:]) != image_shape:
        raise ValueError(
            f"image: wants uint8 (B, {', '.join(map(str, image_shape))}), "
            f"is {image.dtype} {tuple(image.shape)}"
        )


def passes(image: Tensor) -> tuple[Tensor, ...]:
    """A batch in parts that fit the cache: on a CPU frame by frame, so that what is found of one
    never depends on its company. An exported program makes one pass.
    """
    if torch.compiler.is_exporting():
        return (image,)
    return torch.split(image, 1 if image.device.type == "cpu" else GPU_FRAMES)


def header_of(encoder: nn.Module) -> dict[str, object]:
    """All that an encoder is but its weights; of the source that it carries, likewise."""
    from pretrain import saliency_source  # stands on this file

    module = cast(Any, encoder)
    carried = getattr(encoder, "saliency", None)
    source = {}
    if isinstance(carried, nn.Module):
        source["saliency"] = saliency_source.header_of(carried)
    return store.header(
        FORMAT,
        encoder,
        image_shape=list(module.image_shape),
        config=module.config,
        features=module.features,
        **source,
    )


def build_encoder(
    header: Mapping[str, Any], folder: Path, features: Mapping[str, object] | None = None
) -> nn.Module:
    """The encoder that a header describes, its weights not filled in; `folder` is named in errors.

    Raises FoveaError where it describes none.
    """
    from pretrain import saliency_source  # stands on this file

    source = folder / store.CONFIG
    if header.get("format") != FORMAT:
        raise FoveaError(
            f"{source}: format is {header.get('format')!r}, not {FORMAT!r}; "
            "give the folder of an encoder"
        )
    word = store.word_module("pretrain.encoders", header.get("model"), source)
    config = store.build(word.Config, header.get("config"), source)
    saved = asdict(store.build(word.Features, header.get("features"), source))
    used = store.build(word.Features, {**saved, **(features or {})}, f"features for {folder}")
    parts = [config, used, store.image_shape_of(header, folder)]
    if needs_saliency(config):
        parts.append(saliency_source.build_source(header.get("saliency"), folder))
    try:
        encoder: nn.Module = word.Encoder(*parts)
    except (ValueError, RuntimeError) as error:
        raise FoveaError(f"{folder}: {error}") from error
    return encoder


def needs_saliency(config: object) -> bool:
    """Whether an encoder of this Config carries a source of saliency."""
    return bool(getattr(config, "needs_saliency", False))


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write `model.safetensors` and `config.json`; equal encoders give equal bytes."""
    module = cast(nn.Module, encoder)
    store.save_module(module, folder, header_of(module))


def load_encoder(
    folder: Path | str,
    *,
    features: Mapping[str, object] | None = None,
    device: str = "cpu",
    shared: Path | None = None,
) -> Encoder:
    """The encoder of an artifact folder; `features` override those it was saved with, key by key.

    An encoder that remembers what it has computed shares it through the folder `shared` with other
    processes and later runs; no result depends on it.

    Raises FileNotFoundError or FoveaError naming the file that is missing, truncated, foreign or
    does not fit.
    """
    folder = Path(folder)
    encoder = build_encoder(store.read_header(folder), folder, features)
    store.load_weights(encoder, folder)
    share = getattr(encoder, "share", None)
    if shared and share and device == "cpu":
        share(shared)
    return cast(Encoder, encoder.to(device))


def export(encoder: Encoder, path: Path) -> None:
    """Write the encoder as a `torch.export` program: uint8 (B, C, H, W) of any B -> the Obs as a
    dict of tensors.

    It needs nothing but torch to run: `torch.export.load(path).module()(image)`. What the tracer
    knows of source files and classes is taken out, so the bytes depend on the encoder and torch
    alone.
    """
    module = cast(nn.Module, encoder)
    example = torch.zeros(2, *encoder.image_shape, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(module, (example,), dynamic_shapes={"image": {0: batch}})
    for submodule in program.graph_module.modules():
        if isinstance(submodule, torch.fx.GraphModule):
            for node in submodule.graph.nodes:
                for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
                    node.meta.pop(key, None)
    program.example_inputs = None
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    write_atomic(path, buffer.getvalue())
