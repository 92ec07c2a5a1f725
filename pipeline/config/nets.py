"""Checks of a policy's network, found out by building it without weights."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from datasets import envs
from pipeline.config.tables import Entry, component

IMAGES = ("pixels", "masked")  # kinds of features; nets on tokens are for any number of them


def odd_net(policy: Entry, encoder: Entry) -> list[str]:
    """The reasons why a policy's net cannot be built for its images, or its agent not trained."""
    kind, net = _kind(policy, encoder), policy.net
    if net is None or kind not in IMAGES:
        return []
    where = f"policies.{policy.name}"
    own = {field.name for field in dataclasses.fields(net.config)}
    try:
        core = _built(policy, kind)
    except ValueError as error:
        inside = "net." if str(error).partition(":")[0] in own else "net: "
        return [f"{where}.{inside}{mistake}" for mistake in str(error).splitlines()]
    return [f"{where}.{mistake}" for mistake in policy.config.misfits(core)]


def attends(policy: Entry, encoder: Entry) -> bool:
    """Whether a policy's net attends to parts of the image."""
    kind, net = _kind(policy, encoder), policy.net
    if net is None:
        return True  # a mistake, listed elsewhere
    if kind not in IMAGES:
        selects = component("pretrain.encoders", encoder.keys.model).Encoder.selects
        return bool(component("rl.nets", net.name).Net.attends and selects)
    try:
        return bool(_built(policy, kind).attends)
    except ValueError:
        return True  # likewise


def thresholds(policy: Entry, encoder: Entry) -> bool:
    """Whether a policy's net can set small weights of its attention to 0."""
    kind = _kind(policy, encoder)
    if policy.net is None or kind not in IMAGES:
        return policy.net is None  # a mistake, listed elsewhere
    try:
        return _built(policy, kind).threshold is not None
    except ValueError:
        return True  # likewise


def _kind(policy: Entry, encoder: Entry) -> str:
    features = component("pretrain.encoders", encoder.keys.model).Features
    return str(features(**(encoder.features | policy.features)).kind)


def _built(policy: Entry, kind: str) -> Any:
    """The net of a policy. Raises ValueError if it does not fit the features."""
    assert policy.net is not None
    shape = envs.image_shape(policy.keys.env)
    return _build(policy.net.name, policy.net.config, policy.config.stack, kind, shape)


@functools.cache
def _build(name: str, config: Any, stack: int, kind: str, shape: tuple[int, int, int]) -> Any:
    import torch  # takes seconds, and reading a single entry does not need it

    from rl import nets

    with torch.device("meta"):
        example = {"image": torch.zeros(1, *shape, dtype=torch.uint8)}
        if kind == "masked":
            example["attention"] = torch.zeros(1, 1, 1)
        return nets.make(name, config, example, stack, actions=1)  # their number fits any net
