"""Networks from features to one vector. An agent names its net for a kind of features (`NETS`)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pretrain.encoder import Obs
from rl.net import Core
from rl.stack import FrameStack


def config_for(name: str) -> type:
    """The Config of a net."""
    config: type = import_module(f"rl.nets.{name}").Config
    return config


def make(name: str, config: Any, example: Obs, stack: int, actions: int) -> Core:
    """The net `name` on features like `example` (one frame, batch first).

    A Net is of a stack of `stack` frames. A Core has its own memory, and may read the last of so
    many `actions`.
    """
    net = import_module(f"rl.nets.{name}").Net
    if issubclass(net, Core):
        core: Core = net(config, example, actions)
        return core
    return FrameStack(net(config, example, stack), stack, example)
