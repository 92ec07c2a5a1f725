"""Components on disk: encoders and sources of saliency, complete in one folder each.

`config.json` describes the component, `model.safetensors` has its weights, and both include the
source that an encoder carries. Reading them runs no code. The `torch.export` program beside an
encoder is for processes outside of this repository.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from datasets.errors import FoveaError
from datasets.files import read_json, write_atomic
from datasets.sealed import check_listed
from pretrain.bounded import Bounded
from pretrain.encoder import Component, Encoder, Header, Saliency, Shape, Weights

T = TypeVar("T")

CONFIG, WEIGHTS = "config.json", "model.safetensors"
ENCODER, SALIENCY = "fovea-encoder/1", "fovea-saliency/1"  # formats
PACKAGES = {ENCODER: "pretrain.encoders", SALIENCY: "pretrain.saliency"}
INNER = "saliency"  # an encoder's key and module for the source that it carries


class EncoderMap(nn.Module):
    """A SaliencySource: the saliency map of an encoder that labels."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def image_shape(self) -> Shape | None:
        """The encoder's."""
        return self.encoder.image_shape

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> (B, 1, H, W) float32 in [0, 1]."""
        saliency = self.encoder.saliency_map(image)
        assert saliency is not None, "_as_source() has checked it"
        return saliency


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write `model.safetensors` and `config.json`; equal encoders give equal bytes."""
    _save(encoder, folder)


def save_saliency(source: Saliency, folder: Path) -> None:
    """Write a source of `pretrain/saliency/`: `model.safetensors` and `config.json`."""
    _save(source, folder)


def load_encoder(
    folder: Path | str,
    *,
    features: Mapping[str, object] | None = None,
    device: str = "cpu",
    shared: Path | None = None,
) -> Encoder:
    """The encoder of an artifact folder; `features` override those it was saved with, key by key.

    Its cache is shared with other processes and later runs through the folder `shared`.

    Raises FileNotFoundError or FoveaError naming the file that is missing, truncated, of another
    format, not the bytes that its artifact's manifest lists, or that does not fit.
    """
    folder = Path(folder)
    header = read_header(folder)
    if header.get("format") != ENCODER:
        raise FoveaError(
            f"{folder / CONFIG}: format is {header.get('format')!r}, not {ENCODER!r}; "
            "give the folder of an encoder"
        )
    encoder = _load(header, folder, features)
    assert isinstance(encoder, Encoder)
    if shared and device == "cpu":
        encoder.share(shared)
    return encoder.to(device)


def load_saliency(folder: Path | str, *, device: str = "cpu") -> Saliency | EncoderMap:
    """The saliency source of an artifact folder: a predictor, or an encoder that can label.

    Raises FileNotFoundError or FoveaError naming the file that is missing, damaged, of another
    format, or not a source of saliency.
    """
    folder = Path(folder)
    header = read_header(folder)
    return _as_source(_load(header, folder), folder).to(device)


def export(encoder: Encoder, path: Path) -> None:
    """Write an encoder of one image shape as a `torch.export` program: uint8 (B, C, H, W) of any B
    -> the Obs as a dict of tensors.

    It needs nothing but torch to run: `torch.export.load(path).module()(image)`. The tracer's
    records of source files and classes are removed, so the bytes depend on the encoder and torch
    alone.
    """
    example = encoder.blank().repeat(2, 1, 1, 1)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(encoder, (example,), dynamic_shapes={"image": {0: batch}})
    for submodule in program.graph_module.modules():
        if isinstance(submodule, torch.fx.GraphModule):
            for node in submodule.graph.nodes:
                for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
                    node.meta.pop(key, None)
    program.example_inputs = None
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    write_atomic(path, buffer.getvalue())


def header_of(module: nn.Module) -> Header:
    """The description of a component without its weights, and of the source that it carries."""
    if isinstance(module, EncoderMap):
        return header_of(module.encoder)
    assert isinstance(module, Encoder | Saliency)
    header: Header = {
        "format": ENCODER if isinstance(module, Encoder) else SALIENCY,
        "model": type(module).__module__.rpartition(".")[2],
        "image_shape": None if module.image_shape is None else list(module.image_shape),
        "config": dataclasses.asdict(module.config),
    }
    if isinstance(module, Encoder):
        header["features"] = dataclasses.asdict(module.features)
        if module.saliency is not None:
            header[INNER] = header_of(module.saliency)
    return header


def build(
    header: object, folder: Path, features: Mapping[str, object] | None = None
) -> Encoder | Saliency:
    """The component that a header describes, with the source that it carries, without weights.

    Errors name `folder`. Raises FoveaError for a header that does not describe a component.
    """
    source = folder / CONFIG
    if not isinstance(header, Mapping):
        raise FoveaError(f"{source}: saliency is {header!r}, must be a source's header")
    file = _file_of(header, source)
    config = _read(file.Config, header.get("config"), source)
    if header["format"] == SALIENCY:
        cls, parts = file.Saliency, [config, _shape_of(header, source)]
    else:
        own = dataclasses.asdict(_read(file.Features, header.get("features"), source))
        final = _read(file.Features, {**own, **(features or {})}, f"features for {folder}")
        any_image = file.Encoder.any_image and header.get("image_shape") is None
        cls, parts = file.Encoder, [config, final, None if any_image else _shape_of(header, source)]
        if config.needs_saliency:
            parts.append(_as_source(build(header.get(INNER), folder), folder))
    try:
        component: Encoder | Saliency = cls(*parts)
    except (ValueError, RuntimeError) as error:  # torch's, for sizes beyond any memory
        raise FoveaError(f"{folder}: {error}") from error
    return component.requires_grad_(False).eval()


def read_header(folder: Path) -> Header:
    """The `config.json` of a folder. Raises FoveaError or FileNotFoundError naming it."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; is {folder} the folder of an artifact?")
    check_listed(path)
    header = read_json(path)
    if not isinstance(header, dict):
        raise FoveaError(f"{path}: must hold a JSON object; build the artifact again")
    return header


def upgraded(header: Header, weights: Weights, source: Path) -> tuple[Header, Weights]:
    """A header and weights in today's form, by the `upgrade` of the component and of the source
    that it carries. Raises FoveaError naming `source` where their form is unknown.
    """
    file = _file_of(header, source)
    cls: type[Component] = file.Encoder if header["format"] == ENCODER else file.Saliency
    inner = header.get(INNER)
    prefix = ""
    if isinstance(inner, Mapping):
        prefix = f"{INNER}." + ("encoder." if inner.get("format") == ENCODER else "")
    own = {name: w for name, w in weights.items() if not prefix or not name.startswith(prefix)}
    theirs = {n.removeprefix(prefix): w for n, w in weights.items() if n not in own}
    try:
        header, own = cls.upgrade(dict(header), own)
    except (KeyError, TypeError, ValueError) as error:
        raise FoveaError(
            f"{source}: not a known form of {header['model']} ({error!r}); build the artifact again"
        ) from error
    if isinstance(inner, Mapping):
        inner, theirs = upgraded(dict(inner), theirs, source)
        header[INNER] = inner
    return header, own | {f"{prefix}{name}": weight for name, weight in theirs.items()}


def _load(header: Header, folder: Path, features: Mapping[str, object] | None = None) -> Any:
    header, weights = upgraded(header, _weights(folder), folder / CONFIG)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)  # the caller's may be another
    try:
        with Bounded(folder / WEIGHTS):
            component = build(header, folder, features)
    finally:
        torch.set_default_dtype(default)
    _fill(component, weights, folder)
    return component


def _save(component: Component, folder: Path) -> None:
    """Write both files; the same weights and header give the same bytes anywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.cpu().contiguous() for name, tensor in component.state_dict().items()}
    write_atomic(folder / WEIGHTS, save(weights))
    text = json.dumps(header_of(component), indent=2, sort_keys=True, allow_nan=False)
    write_atomic(folder / CONFIG, f"{text}\n".encode())


def _as_source(component: Encoder | Saliency, folder: Path) -> Saliency | EncoderMap:
    if isinstance(component, Saliency):
        return component
    if not (component.labels or component.saliency is not None):
        model = type(component).__module__.rpartition(".")[2]
        raise FoveaError(
            f"{folder / CONFIG}: an encoder of model {model!r} has no saliency map; "
            "name one that has, such as mae"
        )
    return EncoderMap(component)


def _file_of(header: Mapping[str, Any], source: Path) -> ModuleType:
    """The file of a header's component, which must be in one of our two packages."""
    form, model = header.get("format"), header.get("model")
    package = PACKAGES.get(form) if isinstance(form, str) else None
    if package is None:
        raise FoveaError(
            f"{source}: format is {form!r}, not {SALIENCY!r} or {ENCODER!r}; "
            "give the folder of a predictor or an encoder"
        )
    parent = importlib.import_module(package)
    known = sorted(p.stem for p in Path(parent.__path__[0]).glob("*.py") if p.stem[0] not in "._")
    if model not in known:
        raise FoveaError(f"{source}: model {model!r} is unknown; must be one of {', '.join(known)}")
    return importlib.import_module(f"{package}.{model}")


def _read(cls: type[T], values: object, source: Path | str) -> T:
    """`cls(**values)`. Raises FoveaError naming `source` for values that do not fit."""
    if not isinstance(values, Mapping):
        raise FoveaError(f"{source}: {cls.__name__} must be a mapping, is {type(values).__name__}")
    try:
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (TypeError, ValueError) as error:
        raise FoveaError(f"{source}: {error}") from error


def _shape_of(header: Mapping[str, Any], source: Path) -> Shape:
    """The `image_shape` of a header, (C, H, W)."""
    shape: Any = header.get("image_shape")
    whole = isinstance(shape, list) and len(shape) == 3 and all(type(n) is int for n in shape)
    if not whole or not all(1 <= n <= 4096 for n in shape):
        raise FoveaError(f"{source}: image_shape must be [C, H, W] in 1..4096, is {shape!r}")
    return shape[0], shape[1], shape[2]


def _weights(folder: Path) -> Weights:
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; build the artifact again")
    check_listed(path)
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise FoveaError(
            f"{path}: not readable as safetensors ({error}); build the artifact again"
        ) from error


def _fill(module: nn.Module, weights: Weights, folder: Path) -> None:
    """Load the weights: names, shapes and types must be the module's, and all values finite."""
    path, own = folder / WEIGHTS, module.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        have, want = weights.get(name), own.get(name)
        if have is None or want is None or have.shape != want.shape or have.dtype != want.dtype:
            raise FoveaError(
                f"{path}: {name} is {_type(have)}, but {folder / CONFIG} needs {_type(want)}; "
                "these files do not belong together, build the artifact again"
            )
        if have.is_floating_point() and not have.isfinite().all():
            raise FoveaError(f"{path}: {name} has NaN or infinite values; train it again")
    module.load_state_dict(weights)


def _type(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
