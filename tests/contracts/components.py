"""All components, and small instances of them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pretrain.encoder import Encoder, Obs
from pretrain.saliency import motion
from rl import agents, nets, policy
from rl.agent import Agent
from rl.policy import Policy, Spec

CODE = Path(__file__).parents[2]
PACKAGES = (
    "datasets.envs",
    "datasets.sources",
    "datasets.annotation",
    "pretrain.encoders",
    "pretrain.saliency",
    "rl.agents",
    "rl.nets",
)
# Files in a folder of components that are not components.
PARTS = {
    f"datasets.annotation.{part}"
    for part in ("choice", "click_file", "heatmap_js", "maps", "ram", "server")
}
REQUIRED_FIELDS = {"datasets.envs": {"game"}}  # fields that the env fills in, without a default
SHAPE = (3, 40, 40)
ACTIONS = 3
# Components with any of these fields are built with these values; the others are small by default.
SMALL: dict[str, Any] = dict(
    patch=8, dim=16, depth=1, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2,
    batch_size=6, streams=2, horizon=7, steps=60, learn_start=8, replay_capacity=60, n_step=3,
    stack=2, atoms=5, hidden=8, target_every=2, learning_rate=0.01, layers=3, filters=4, size=16,
    num_envs=4, unroll=3, minibatches=2, epochs=2, invert_every=2, group=3,
)  # fmt: skip

# Nets on pixels that are no agent's default: attention of their own, and memories.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "joint": ("masked_cnn", {"mask": "joint"}),
    "top_down": ("masked_cnn", {"mask": "top_down"}),
    "s3ta": ("top_down", {}),
    "lstm": ("impala_resnet", {"lstm": True}),
    "fls": ("fls", {}),
    "fls_each": ("fls", {"variant": "sparse_each"}),
}


def components(package: str) -> list[str]:
    """Every component of a folder, as `package.component`."""
    files = (CODE / package.replace(".", "/")).glob("*.py")
    names = [f"{package}.{path.stem}" for path in sorted(files) if path.stem[0] not in "._"]
    return [name for name in names if name not in PARTS]


COMPONENTS = [name for package in PACKAGES for name in components(package)]


def of(package: str) -> pytest.MarkDecorator:
    """Run the test once for every component of a folder."""
    return pytest.mark.parametrize("component", components(package))


def small(config: Callable[..., Any], **required: Any) -> Any:
    """A Config with the values of SMALL for the fields that it has."""
    known = inspect.signature(config).parameters
    return config(**{key: value for key, value in SMALL.items() if key in known} | required)


def images(count: int = 4, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    """Frames (count, *shape) of noise; the last is one object on an even ground, so that few of its
    patches are selected.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    thing = noise[-1, :, 8:16, 8:16].clone()
    noise[-1] = 90
    noise[-1, :, 8:16, 8:16] = thing
    return noise


def make_encoder(component: str) -> Any:
    """An untrained encoder as the stage `pretrain` makes it; `x:none` has features that are not
    pooled.
    """
    component, _, pool = component.partition(":")
    module = importlib.import_module(component)
    features = module.Features(**({"pool": pool} if pool else {}))
    config = small(module.Config)
    carried = [motion.fit(motion.Config(), images(7, seed=1))] if config.needs_saliency else []
    if config.learns:
        return module.Pretraining(config, SHAPE).encoder(features, *carried)
    return module.Encoder(config, features, SHAPE, *carried)


def inputs_for(encoder: Any, count: int = 4, seed: int = 0) -> Tensor:
    """Inputs of an encoder: images, or states."""
    if encoder.info is None:
        return images(count, seed)
    return torch.randn(count, encoder.size, generator=torch.Generator().manual_seed(seed))


def net_choice(component: str, features: str) -> tuple[str, Any]:
    """The net that an agent puts on a kind of features, and its settings; of `x:y` a VARIANT."""
    agent, _, variant = component.rsplit(".", 1)[1].partition(":")
    net, settings = VARIANTS[variant] if variant else (agents.net_for(agent, features), {})
    return net, small(nets.config_for(net), **settings)


def make_policy(component: str, encoder: Encoder, seed: int = 0) -> Policy:
    """A small policy of an agent, with the net of `net_choice`."""
    module = component.partition(":")[0]
    name, config = module.rsplit(".", 1)[1], small(importlib.import_module(module).Config)
    net, settings = net_choice(component, encoder.features.kind)
    spec = Spec("fake/Env", name, config, net, settings, ACTIONS)
    return policy.make_policy(spec, encoder, seed=seed)


def make_agent(component: str, encoder: Encoder, seed: int = 0) -> Agent[Any]:
    return make_policy(component, encoder, seed).agent


def equal(one: Obs, other: Obs) -> bool:
    """Equal keys and equal bits."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def same_files(one: Path, other: Path) -> bool:
    files = {path.name: path.read_bytes() for path in one.iterdir()}
    return files == {path.name: path.read_bytes() for path in other.iterdir()} and bool(files)


def kind(component: str) -> str:
    """The kind of features of that component's encoders."""
    kind: str = make_encoder(component).features.kind
    return kind


def kind_of(obs: Obs) -> str:
    """The kind of features of `obs`, by its keys."""
    keys = {
        ("x", "mask", "pos"): "tokens",
        ("image",): "pixels",
        ("image", "attention"): "masked",
        ("state",): "state",
    }
    kind = keys[tuple(obs)]
    return "vector" if kind == "tokens" and obs["x"].shape[1] == 1 else kind


def game_of(component: str) -> str:
    """A game in which something moves from the start, if we know one."""
    games: list[str] = list(importlib.import_module(component).games())
    known = [game for game in ("Breakout", "Reacher-v5") if game in games]
    return [*known, *games][0]
