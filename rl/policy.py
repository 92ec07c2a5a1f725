"""A policy and its complete artifact: the environment, the agent, its net and the encoder.

    config.json          environment, agent and net with their settings
    encoder/             a copy of the encoder, with the policy's features
    seed-<n>/            weights-<step>.safetensors, curve.csv, metrics.json (rl/run.py)

`load_policy` needs nothing else. Files are safetensors and JSON only: no code runs from an
artifact.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from gymnasium.spaces import Box, Discrete, Space
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from datasets import envs
from datasets.errors import FoveaError
from datasets.files import write_atomic
from datasets.sealed import check_listed
from pretrain.bounded import Bounded
from pretrain.encoder import Encoder, Obs
from pretrain.frozen import load_encoder, read_header, save_encoder
from rl import agents
from rl.agent import Agent

FORMAT = "fovea-policy/1"
CONFIG, ENCODER = "config.json", "encoder"
_WEIGHTS = re.compile(r"weights-(\d{7,})\.safetensors")


@dataclass(frozen=True)
class Spec:
    """A policy without its encoder and weights; components are named by their files."""

    env: str  # such as "atari/Pong"
    agent: str
    config: Any  # of the agent
    net: str
    net_config: Any
    actions: int  # the number of discrete actions, or the length of a continuous one


@dataclass(frozen=True)
class Policy:
    """An agent on an encoder, on one device."""

    spec: Spec
    encoder: Encoder
    agent: Agent[Any]
    example: Obs  # features of one blank frame, for their shapes
    seed: int = 0  # of training: environment, warm-up and replay

    @property
    def continuous(self) -> bool:
        """Whether actions are continuous, from -1 to 1."""
        return agents.actions_of(self.spec.agent) == agents.CONTINUOUS


def make_policy(
    spec: Spec, encoder: Encoder, *, seed: int = 0, device: torch.device | str = "cpu"
) -> Policy:
    """A fresh policy; the same arguments give the same weights."""
    example = example_of(encoder, spec.env, device)
    agent = agents.make(
        spec.agent,
        spec.config,
        example,
        net_name=spec.net,
        net_config=spec.net_config,
        actions=spec.actions,
        seed=seed,
        device=device,
    )
    return Policy(spec, encoder, agent, example, seed)


def action_count(space: Space[Any]) -> int:
    """The number of discrete actions, or the length of a continuous one.

    Raises FoveaError for actions that are neither discrete nor continuous within -1 and 1.
    """
    if isinstance(space, Discrete):
        return int(space.n)
    within = isinstance(space, Box) and (space.low == -1).all() and (space.high == 1).all()
    if isinstance(space, Box) and within and len(space.shape) == 1:
        return space.shape[0]
    raise FoveaError(
        f"env: its actions are {space}, must be discrete, or continuous within -1 and 1"
    )


@torch.no_grad()
def example_of(encoder: Encoder, env: str, device: torch.device | str) -> Obs:
    """Features of one blank frame of an environment."""
    shape = encoder.image_shape or envs.image_shape(env)
    return encoder(encoder.blank(shape).to(device))


def save_policy(spec: Spec, encoder: Encoder, folder: Path) -> None:
    """Write a policy's `config.json` and encoder; the same policy gives the same bytes."""
    header = {
        "format": FORMAT,
        "env": spec.env,
        "actions": spec.actions,
        "agent": {"name": spec.agent} | asdict(spec.config),
        "net": {"name": spec.net} | asdict(spec.net_config),
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(header, indent=2, sort_keys=True, allow_nan=False)
    write_atomic(folder / CONFIG, f"{text}\n".encode())
    save_encoder(encoder, folder / ENCODER)


def load_policy(
    folder: Path | str,
    *,
    seed: int = 0,
    step: int | None = None,
    device: str = "cpu",
    shared: Path | None = None,
) -> Policy:
    """The policy of an artifact folder, with a seed's weights at `step`, by default its last.

    `shared` is `load_encoder`'s. Raises FileNotFoundError or FoveaError naming the file that is
    missing, damaged as the manifest of its artifact says, foreign or does not fit.
    """
    folder = Path(folder)
    files = dict(checkpoints(folder / f"seed-{seed}"))
    if not files or (step is not None and step not in files):
        raise FileNotFoundError(
            f"{folder}: seed {seed} has no weights of step {step}; "
            f"its steps are {sorted(files) or 'none'}"
        )
    spec = read_spec(folder)
    encoder = load_encoder(folder / ENCODER, device=device, shared=shared)
    path = files[max(files) if step is None else step]
    check_listed(path)
    try:
        with Bounded(path):
            policy = make_policy(spec, encoder, seed=seed, device=device)
    except ValueError as error:
        raise FoveaError(f"{folder / CONFIG}: {error}") from error
    try:
        policy.agent.policy.load_state_dict(_finite(load_file(path)))
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise FoveaError(f"{path}: not this policy's weights ({error}); train it again") from error
    return policy


def _finite(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise ValueError(f"{name} has NaN or infinite values")
    return weights


def read_spec(folder: Path) -> Spec:
    """The Spec in a policy's `config.json`. Raises as `load_policy` does."""
    header, source = read_header(folder), folder / CONFIG
    if header.get("format") != FORMAT:
        raise FoveaError(
            f"{source}: format is {header.get('format')!r}, not {FORMAT!r}; "
            "give the folder of a policy"
        )
    env, actions = header.get("env"), header.get("actions")
    if not isinstance(env, str) or type(actions) is not int or not 1 <= actions <= 1_000:
        raise FoveaError(
            f"{source}: env {env!r} and actions {actions!r}, must be a name and 1 to 1,000"
        )
    agent, config = _component(header.get("agent"), "rl.agents", source)
    net, net_config = _component(header.get("net"), "rl.nets", source)
    return Spec(env, agent, config, net, net_config, actions)


def _component(part: Any, package: str, source: Path) -> tuple[str, Any]:
    """The name of a component, and its settings as its Config."""
    settings = dict(part) if isinstance(part, dict) else {}
    name = settings.pop("name", None)
    parent = import_module(package)
    known = sorted(p.stem for p in Path(parent.__path__[0]).glob("*.py") if p.stem[0] not in "._")
    if name not in known:
        raise FoveaError(f"{source}: {name!r}, must be a file of {package}: {', '.join(known)}")
    config = import_module(f"{package}.{name}").Config
    try:
        tuples = {key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}
        return name, config(**tuples)
    except (TypeError, ValueError) as error:
        raise FoveaError(f"{source}: {name}: {error}") from error


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Environment step and path of every weights file of a seed, in time order."""
    files = folder.iterdir() if folder.is_dir() else ()
    matches = ((_WEIGHTS.fullmatch(path.name), path) for path in files)
    return sorted((int(match[1]), path) for match, path in matches if match)
