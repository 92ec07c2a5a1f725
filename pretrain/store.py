"""A frozen module on disk: `model.safetensors`, and a `config.json` that says what they fill."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from datasets.errors import FoveaError
from datasets.files import write_atomic

T = TypeVar("T")

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def word_of(thing: object) -> str:
    """The word a method goes by in params.yaml: its file's name."""
    return type(thing).__module__.rpartition(".")[2]


def word_module(package: str, word: object, source: Path) -> ModuleType:
    """The file of a word in one of our packages, nowhere else; a FoveaError names `source`."""
    parent = importlib.import_module(package)
    known = sorted(p.stem for p in Path(parent.__path__[0]).glob("*.py") if p.stem != "__init__")
    if word not in known:
        raise FoveaError(
            f"{source}: model {word!r} is not known here; known are {', '.join(known)}"
        )
    return importlib.import_module(f"{package}.{word}")


def build(cls: type[T], values: object, source: Path | str) -> T:
    """`cls(**values)`; what does not fit is a FoveaError naming `source`."""
    if not isinstance(values, Mapping):
        raise FoveaError(f"{source}: {cls.__name__} must be a mapping, is {type(values).__name__}")
    try:
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (TypeError, ValueError) as error:
        raise FoveaError(f"{source}: {error}") from error


def save_module(module: nn.Module, folder: Path, header: Mapping[str, object]) -> None:
    """Write both files; the same weights and header give the same bytes anywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    write_atomic(folder / WEIGHTS, save(weights))
    text = json.dumps(header, indent=2, sort_keys=True, allow_nan=False)
    write_atomic(folder / CONFIG, f"{text}\n".encode())


def read_header(folder: Path) -> dict[str, Any]:
    """The `config.json` of a folder; raises FoveaError or FileNotFoundError naming it."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; is {folder} the folder of an artifact?")
    try:
        header = json.loads(path.read_bytes())
    except ValueError as error:
        raise FoveaError(
            f"{path}: not readable as JSON ({error}); build the artifact again"
        ) from error
    if not isinstance(header, dict):
        raise FoveaError(f"{path}: must hold a JSON object; build the artifact again")
    return header


def image_shape_of(header: Mapping[str, Any], folder: Path) -> tuple[int, int, int]:
    """The `image_shape` of a header, (C, H, W)."""
    shape: Any = header.get("image_shape")
    whole = isinstance(shape, list) and len(shape) == 3 and all(type(n) is int for n in shape)
    if not whole or not all(1 <= n <= 4096 for n in shape):
        raise FoveaError(
            f"{folder / CONFIG}: image_shape must be [C, H, W] in 1..4096, is {shape!r}"
        )
    return shape[0], shape[1], shape[2]


def load_weights(module: nn.Module, folder: Path) -> None:
    """Fill `module`: names, shapes and types must be as it has them, all numbers finite."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; build the artifact again")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise FoveaError(
            f"{path}: not readable as safetensors ({error}); build the artifact again"
        ) from error
    own = module.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        have, want = weights.get(name), own.get(name)
        if have is None or want is None or have.shape != want.shape or have.dtype != want.dtype:
            raise FoveaError(
                f"{path}: {name} is {_kind(have)} where {folder / CONFIG} asks for {_kind(want)}; "
                "the two do not belong together, build the artifact again"
            )
        if have.is_floating_point() and not have.isfinite().all():
            raise FoveaError(f"{path}: {name} holds NaN or infinity; train it again")
    module.load_state_dict(weights)


def _kind(tensor: torch.Tensor | None) -> str:
    return "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"


def header(format: str, module: nn.Module, **parts: Any) -> dict[str, object]:
    """What `config.json` holds: dataclasses written out, everything JSON-able."""
    flat = {k: asdict(v) if hasattr(v, "__dataclass_fields__") else v for k, v in parts.items()}
    return {"format": format, "model": word_of(module), **flat}
