"""Networks from stacked features to one vector; the features' kind says which one."""

from __future__ import annotations

from importlib import import_module

from datasets.errors import FoveaError
from pretrain.encoder import Obs
from rl.net import Net

_NETS = {"tokens": "tokens", "pixels": "data_efficient_cnn"}  # kind of features -> module
_KINDS = {frozenset({"x", "mask", "pos"}): "tokens", frozenset({"image"}): "pixels"}


def kind_of(example: Obs) -> str:
    """What kind of features `example` is, by its keys: "tokens" or "pixels"."""
    kind = _KINDS.get(frozenset(example))
    if kind is None:
        raise FoveaError(
            f"encoder: no net takes features with the keys {sorted(example)}; "
            f"there are nets for {[sorted(keys) for keys in _KINDS]}"
        )
    return kind


def config_for(kind: str) -> type:
    """The Config of the net for a kind of features."""
    if kind not in _NETS:
        raise FoveaError(f"no net takes {kind!r} features; there are nets for {sorted(_NETS)}")
    config: type = import_module(f"rl.nets.{_NETS[kind]}").Config
    return config


def make(example: Obs, stack: int, config: object | None = None) -> Net:
    """The net for features like `example` (one frame, batch first), stacked `stack` deep.

    `config` is of the type that `config_for` says; None stands for its defaults.
    """
    module = import_module(f"rl.nets.{_NETS[kind_of(example)]}")
    net: Net = module.Net(module.Config() if config is None else config, example, stack)
    return net
