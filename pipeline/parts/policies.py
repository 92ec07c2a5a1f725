"""A policy from its entry: the encoder with the policy's features, the fitting net, the agent."""

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

SHARED = ROOT / ".errors"  # what encoders remember: a cache, not an artifact


def import_parts(spec: Spec, encoder: Path) -> None:
    """Import what a policy is made of, so that processes forked afterwards need not: seconds each.

    Torch imports its compiler too, when the first optimizer is made.
    """
    component("pretrain.encoders", str(read_header(encoder)["model"]))
    for name in (f"rl.agents.{spec.agent}", f"rl.nets.{spec.net}", "torch._dynamo"):
        importlib.import_module(name)


def device() -> str:
    """Where policies act and learn; one thread a process, as seeds run side by side."""
    torch.set_num_threads(1)
    return "cuda" if torch.cuda.is_available() else "cpu"


def fresh_policy(spec: Spec, encoder: Encoder, seed: int) -> Policy:
    """An untrained policy of a seed."""
    return make_policy(spec, encoder, seed=seed, device=device())


def open_encoder(entry: Entry, encoder: Path) -> Encoder:
    """The encoder of an entry, with the features that the policy gets of it."""
    return load_encoder(encoder, features=entry.features, device=device(), shared=SHARED)


def spec_of(entry: Entry) -> Spec:
    """What a policy's artifact says of an entry."""
    assert entry.net is not None, "of every policy's entry"
    return Spec(
        env=entry.keys.env,
        agent=entry.keys.agent,
        config=entry.config,
        net=entry.net.name,
        net_config=entry.net.config,
        actions=action_count(envs.action_space(entry.keys.env)),
    )


def trained_policy(folder: Path, seed: int, step: int) -> Policy:
    """A policy with the weights that training kept."""
    return load_policy(folder, seed=seed, step=step, device=device(), shared=SHARED)


def paper_steps(agent: str) -> int:
    """The environment steps of the paper's setting. A shorter run is a smoke test."""
    return int(component("rl.agents", agent).Config().steps)
