"""A policy from its entry: the encoder with the policy's features, the fitting net, the agent."""

from __future__ import annotations

import dataclasses
import importlib
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from datasets import envs
from datasets.errors import FoveaError
from pipeline.config.tables import Entry, feature_types, word_module
from pipeline.config.typed import read_into
from pipeline.runtime.artifact import ROOT
from pretrain.frozen import load_encoder, read_header
from rl import agents
from rl.agent import Agent
from rl.play import Policy, action_count

SHARED = ROOT / ".errors"  # what encoders remember: a cache, not an artifact
WEIGHTS = re.compile(r"weights-(\d{7,})\.safetensors")


def import_parts(entry: Entry, encoder: Path) -> None:
    """Import what a policy is made of, so that processes forked afterwards need not: seconds each.

    Torch imports its compiler too, when the first optimizer is made.
    """
    _feature_types(entry, encoder)
    importlib.import_module("torch._dynamo")


def open_policy(
    entry: Entry, encoder: Path, *, seed: int = 0, weights: Path | None = None
) -> Policy:
    """A fresh policy of an entry, or one with the weights that training kept.

    Raises:
        FoveaError: the encoder's image is not the environment's, or the weights file is damaged or
            another policy's.
    """
    torch.set_num_threads(1)  # one thread a process: seeds run side by side
    device = "cuda" if torch.cuda.is_available() else "cpu"
    types = _feature_types(entry, encoder)
    mistakes: list[str] = []
    net = read_into(types, entry.features, mistakes)[1]
    own = {field.name for field in dataclasses.fields(types[0])}
    chosen = {key: value for key, value in entry.features.items() if key in own}
    frozen = load_encoder(encoder, features=chosen, device=device, shared=SHARED)
    if mistakes:
        raise FoveaError(f"policies.{entry.name}.features: {'; '.join(mistakes)}")
    with closing(envs.make(entry.keys.env, num_envs=1, seed=0, draw=False)) as env:
        actions = action_count(env.single_action_space)
    agent = agents.make(
        entry.keys.agent,
        entry.config,
        frozen,
        actions=actions,
        net=net,
        seed=seed,
        device=device,
    )
    if weights is not None:
        _fill(agent, weights)
    return Policy(entry.keys.env, frozen, agent, seed)


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Environment step and file of every kept weights file of a seed, in time order."""
    found = ((WEIGHTS.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match)


def paper_steps(agent: str) -> int:
    """The environment steps of the paper's setting: runs shorter than this are smoke."""
    return int(word_module("rl.agents", agent).Config().steps)


def _feature_types(entry: Entry, encoder: Path) -> tuple[type, type]:
    header = read_header(encoder)
    features = header.get("features", {}) | entry.features
    return feature_types(str(header["model"]), entry.keys.agent, features)


def _fill(agent: Agent, weights: Path) -> None:
    try:
        state: dict[str, Any] = load_file(weights)
        agent.policy.load_state_dict(state)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise FoveaError(
            f"{weights}: no weights of this policy ({error}); train it again"
        ) from error
