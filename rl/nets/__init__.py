"""Networks from features to one vector. Which one an agent puts on what kind of features, its own
file says (`NETS`)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from datasets.errors import FoveaError
from pretrain.encoder import Obs
from rl.net import Core
from rl.stack import FrameStack

_KINDS = {
    frozenset({"x", "mask", "pos"}): "tokens",  # or "vector", where there is one
    frozenset({"image"}): "pixels",
    frozenset({"state"}): "state",
}


def kind_of(example: Obs) -> str:
    """What kind of features `example` is: "tokens", "vector" (one token), "pixels" or "state"."""
    kind = _KINDS.get(frozenset(example))
    if kind is None:
        raise FoveaError(
            f"encoder: no net takes features with the keys {sorted(example)}; "
            f"there are nets for {[sorted(keys) for keys in _KINDS]}"
        )
    return "vector" if kind == "tokens" and example["x"].shape[1] == 1 else kind


def config_for(name: str) -> type:
    """The Config of a net."""
    config: type = import_module(f"rl.nets.{name}").Config
    return config


def make(name: str, config: Any, example: Obs, stack: int) -> Core:
    """The net `name` on features like `example` (one frame, batch first).

    A Net is stacked `stack` frames deep; a Core remembers by itself.
    """
    net = import_module(f"rl.nets.{name}").Net(config, example, stack)
    return net if isinstance(net, Core) else FrameStack(net, stack, example)
