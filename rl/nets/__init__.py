"""Networks from features to one vector. An agent names its net for a kind of features (`NETS`)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pretrain.encoder import Obs
from rl.net import Core
from rl.recurrent import Recurrent
from rl.stack import FrameStack


def config_for(name: str) -> type:
    """The Config of a net."""
    config: type = import_module(f"rl.nets.{name}").Config
    return config


def make(name: str, config: Any, example: Obs, stack: int, actions: int) -> Core:
    """The net `name` on features like `example` (one frame, batch first).

    A Net is of a stack of `stack` frames, and may have an LSTM above it. A Core has its own memory.
    Memories may read the last of so many `actions`.
    """
    net = import_module(f"rl.nets.{name}").Net
    if issubclass(net, Core):
        core: Core = net(config, example, actions)
        return core
    frames = FrameStack(net(config, example, stack), stack, example)
    units = frames.net.lstm_units
    return Recurrent(frames, units, actions) if units else frames
