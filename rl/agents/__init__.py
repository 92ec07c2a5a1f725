"""Agents by word: `make("rainbow", config, encoder, actions=18)`.

An agent's file exports `Config`, `Agent`, `ACTIONS` ("discrete" or "continuous") and `NETS`: kind
of features -> the net it puts on them.
"""

from __future__ import annotations

from importlib import import_module

import torch

from datasets.errors import FoveaError
from pretrain.encoder import Encoder
from rl import nets
from rl.agent import Agent, OffPolicyConfig
from rl.features import example_of


def net_for(word: str, kind: str) -> str:
    """The net that an agent puts on a kind of features. FoveaError where it takes none such."""
    taken: dict[str, str] = import_module(f"rl.agents.{word}").NETS
    if kind not in taken:
        raise FoveaError(f"{word} has no net for {kind!r} features; it takes {', '.join(taken)}")
    return taken[kind]


def stackable(word: str) -> bool:
    """Whether several seeds of it can train as one (rl/seeds.py)."""
    return hasattr(import_module(f"rl.agents.{word}").Agent, "optimizer_of")


def make(
    word: str,
    config: OffPolicyConfig,
    encoder: Encoder,
    *,
    actions: int,
    net: object | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Agent:
    """A fresh agent on `encoder`'s features; the same arguments give the same weights.

    `actions` is how many there are, or how many numbers one is made of. `net` is the Config of the
    net that the agent puts on the features (`net_for`); None stands for its defaults.
    """
    example = example_of(encoder, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nets.make(net_for(word, nets.kind_of(example)), example, config.stack, net)
        module = import_module(f"rl.agents.{word}")
        agent: Agent = module.Agent(config, body, actions=actions, seed=seed, device=device)
    return agent
