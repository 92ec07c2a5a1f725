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


def make(name: str, config: Any, example: Obs, stack: int) -> Core:
    """The net `name` on features like `example` (one frame, batch first).

    A Net gets a stack of `stack` frames; a Core has its own memory.
    """
    net = import_module(f"rl.nets.{name}").Net(config, example, stack)
    return net if isinstance(net, Core) else FrameStack(net, stack, example)
