"""Agents by word: `make("rainbow", config, encoder, actions=18)`."""

from __future__ import annotations

from importlib import import_module

import torch

from pretrain.encoder import Encoder
from rl import nets
from rl.agent import Agent, OffPolicyConfig


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

    `net` is the Config of the net that fits the features (`rl.nets.config_for`); None stands for
    its defaults.
    """
    example = encoder(torch.zeros(1, *encoder.image_shape, dtype=torch.uint8, device=device))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nets.make(example, config.stack, net)
        module = import_module(f"rl.agents.{word}")
        agent: Agent = module.Agent(config, body, actions=actions, seed=seed, device=device)
    return agent
