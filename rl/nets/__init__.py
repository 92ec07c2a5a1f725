"""Networks from stacked features to one vector. Which one an agent puts on what kind of features,
its own file says (`NETS`)."""

from __future__ import annotations

from importlib import import_module

from datasets.errors import FoveaError
from pretrain.encoder import Obs
from rl.net import Net

_KINDS = {
    frozenset({"x", "mask", "pos"}): "tokens",  # or "vector", where there is one
    frozenset({"image"}): "pixels",
    frozenset({"image", "attention"}): "masked",
    frozenset({"state"}): "state",
}


def kind_of(example: Obs) -> str:
    """What kind of features `example` is: "tokens", "vector" (one token), "pixels", "masked" or
    "state".
    """
    kind = _KINDS.get(frozenset(example))
    if kind is None:
        raise FoveaError(
            f"encoder: no net takes features with the keys {sorted(example)}; "
            f"there are nets for {[sorted(keys) for keys in _KINDS]}"
        )
    return "vector" if kind == "tokens" and example["x"].shape[1] == 1 else kind


def config_for(word: str) -> type:
    """The Config of a net."""
    config: type = import_module(f"rl.nets.{word}").Config
    return config


def make(word: str, example: Obs, stack: int, config: object | None = None) -> Net:
    """The net `word` for features like `example` (one frame, batch first), stacked `stack` deep.

    `config` is of the type that `config_for` says; None stands for its defaults.
    """
    module = import_module(f"rl.nets.{word}")
    net: Net = module.Net(module.Config() if config is None else config, example, stack)
    return net
