"""Agents by name: `make("rainbow", config, core, actions=18)`.

An agent's file exports `Config`, `Agent`, `ACTIONS` (DISCRETE or CONTINUOUS) and `NETS`: kind of
features -> its default net for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from datasets.errors import FoveaError
from pretrain.encoder import Obs
from rl import nets
from rl.agent import Agent

DISCRETE, CONTINUOUS = "discrete", "continuous"


def actions_of(name: str) -> str:
    """The kind of an agent's actions: DISCRETE or CONTINUOUS."""
    return str(import_module(f"rl.agents.{name}").ACTIONS)


def net_for(name: str, kind: str) -> str:
    """An agent's default net for a kind of features. Raises FoveaError if it has none."""
    known: dict[str, str] = import_module(f"rl.agents.{name}").NETS
    if kind not in known:
        raise FoveaError(f"{name} has no net for {kind!r} features, only for {', '.join(known)}")
    return known[kind]


def make(
    name: str,
    config: Any,
    example: Obs,
    *,
    net_name: str,
    net_config: Any,
    actions: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Agent[Any]:
    """A fresh agent on features like `example` (one frame, batch first).

    The same arguments give the same weights. `actions` is the number of discrete actions, or the
    length of a continuous one. Raises ValueError if net, features and agent don't fit.
    """
    module = import_module(f"rl.agents.{name}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        core = nets.make(net_name, net_config, example, config.stack, actions)
        if mistakes := list(config.misfits(core)):
            raise ValueError("\n".join(mistakes))
        agent: Agent[Any] = module.Agent(config, core, actions=actions, seed=seed, device=device)
    return agent
