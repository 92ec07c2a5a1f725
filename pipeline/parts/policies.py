"""A policy of an entry: the encoder with the policy's features, the net, the agent."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from datasets import envs
from pipeline.config.tables import Entry, component
from pipeline.runtime.artifact import ROOT
from pretrain.encoder import Encoder
from pretrain.frozen import load_encoder, read_header
from rl.policy import Policy, Spec, action_count, load_policy, make_policy

ERROR_CACHE = ROOT / ".errors"  # of the encoders; not an artifact


def import_parts(spec: Spec, encoder: Path) -> None:
    """Import a policy's modules before processes are forked, which saves seconds in each.

    Torch also imports its compiler, when the first optimizer is made.
    """
    component("pretrain.encoders", str(read_header(encoder)["model"]))
    for name in (f"rl.agents.{spec.agent}", f"rl.nets.{spec.net}", "torch._dynamo"):
        importlib.import_module(name)


def device() -> str:
    """The device of policies; sets one thread a process, since seeds run in parallel."""
    torch.set_num_threads(1)
    return "cuda" if torch.cuda.is_available() else "cpu"


def fresh_policy(spec: Spec, encoder: Encoder, seed: int) -> Policy:
    """An untrained policy of a seed."""
    return make_policy(spec, encoder, seed=seed, device=device())


def open_encoder(entry: Entry, encoder: Path) -> Encoder:
    """The encoder of a policy's entry, with the policy's features."""
    return load_encoder(encoder, features=entry.features, device=device(), shared=ERROR_CACHE)


def spec_of(entry: Entry) -> Spec:
    """The Spec of a policy's entry."""
    assert entry.net is not None, "every policy's entry has a net"
    return Spec(
        env=entry.keys.env,
        agent=entry.keys.agent,
        config=entry.config,
        net=entry.net.name,
        net_config=entry.net.config,
        actions=action_count(envs.action_space(entry.keys.env)),
    )


def trained_policy(folder: Path, seed: int, step: int) -> Policy:
    """A policy with the weights of one of its seed's checkpoints."""
    return load_policy(folder, seed=seed, step=step, device=device(), shared=ERROR_CACHE)


def paper_steps(agent: str) -> int:
    """The environment steps of the paper's setting. A shorter run is a smoke test."""
    return int(component("rl.agents", agent).Config().steps)
