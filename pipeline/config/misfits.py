"""Entries of params.yaml that are sound each for itself and cannot work together."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

from datasets import envs
from pipeline.config.tables import Entry, Params, component


def misfits(params: Params) -> list[str]:
    """A line for each: more frames than a learner's steps, or annotations than frames; predictors
    that learn from maps and get frames; maps by what renders none, or was made for other images;
    policies whose agent, encoder and environment don't fit; encoders that don't fit the images they
    are to see, tried by building them, untrained.
    """
    mistakes = [
        f"frames.{name}.count: {entry.keys.count}, must be at most the learner's {steps} steps"
        for name, entry in params.tables["frames"].items()
        if entry.keys.count > (steps := getattr(entry.config, "steps", entry.keys.count))
    ]
    for entry in params.tables["annotations"].values():
        frames = params.find("frames", entry.keys.frames)
        if frames and entry.keys.count > frames.keys.count:
            mistakes.append(
                f"annotations.{entry.name}.count: {entry.keys.count}, must be at most the "
                f"{frames.keys.count} of {frames.label}"
            )
    for entry in params.tables["predictors"].values():
        if entry.config.learns and entry.keys.data.startswith("frames/"):
            mistakes.append(
                f"predictors.{entry.name}.data: {entry.keys.model} learns from maps, which "
                f"{entry.keys.data} has not; name an entry of annotations or saliency"
            )
    for entry in params.tables["saliency"].values():
        mistakes += _odd_source(entry, params)
    for entry in params.tables["encoders"].values():
        if frames := _frames_of(entry, params):
            mistakes += _misfit(entry, entry, envs.image_shape(frames.keys.env))
    for policy in params.tables["policies"].values():
        if encoder := params.find("encoders", policy.keys.encoder):
            mistakes += _odd_policy(policy, encoder, _frames_of(encoder, params))
    return mistakes


def _odd_source(entry: Entry, params: Params) -> list[str]:
    """What keeps the source of an entry of saliency from labelling its frames."""
    where, label = f"saliency.{entry.name}.by", entry.inputs()["by"]
    table, _, name = label.partition("/")
    source = params.find(table, name)
    if not source or table == "policies":
        return []  # listed already
    if table == "encoders" and not _can_label(source):
        return [
            f"{where}: {label}, of model {source.keys.model}, has no saliency map; name one that "
            "has, such as mae"
        ]
    frames, own = params.find("frames", entry.keys.frames), _frames_of(source, params)
    if not frames or not own:
        return []
    sizes = envs.image_shape(own.keys.env), envs.image_shape(frames.keys.env)
    if sizes[0] != sizes[1]:
        return [f"{where}: {label} sees images {sizes[0]}, those of {frames.label} are {sizes[1]}"]
    return [
        f"{where}: {key} is {value} in {frames.label}, and {other} where {label} was made; write "
        f"?{key}={other} there or name another source"
        for key, value, other in _odd_views(frames, own)
    ]


def _odd_views(here: Entry, there: Entry) -> list[tuple[str, str, str]]:
    """What of an environment is shown otherwise in another of its suite: key, here, there."""
    shown, other = envs.rendering(here.keys.env), envs.rendering(there.keys.env)
    if shown["suite"] != other["suite"]:
        return []
    return [(key, value, other[key]) for key, value in shown.items() if value != other[key]]


def _can_label(encoder: Entry) -> bool:
    """Whether it has a saliency map of its own, or carries a source of one."""
    own = component("pretrain.encoders", encoder.keys.model).Encoder
    return bool(own.labels or encoder.config.needs_saliency)


def _odd_policy(policy: Entry, encoder: Entry, frames: Entry | None) -> list[str]:
    """What keeps a policy's agent, encoder and environment from working together."""
    keys, where = policy.keys, f"policies.{policy.name}"
    mistakes = []
    if frames:
        mistakes += _misfit(policy, encoder, envs.image_shape(frames.keys.env))
    kind = component("rl.agents", keys.agent).ACTIONS
    if envs.actions(keys.env) != kind:
        mistakes.append(
            f"{where}.agent: {keys.agent} needs {kind} actions, "
            f"those of {keys.env} are {envs.actions(keys.env)}"
        )
    info = component("pretrain.encoders", encoder.keys.model).Encoder.info
    if info and info not in envs.frame_info(keys.env):
        mistakes.append(f"{where}.env: {keys.env} tells no {info}, which {encoder.name} needs")
    if not frames:
        return mistakes
    return mistakes + [
        f"{where}.env: {key} is {value}, in the frames {frames.name} of its encoder it is {other}; "
        f"write ?{key}={other} or name other frames"
        for key, value, other in _odd_views(policy, frames)
    ]


def _misfit(where: Entry, encoder: Entry, shape: tuple[int, int, int]) -> list[str]:
    """Why an encoder cannot be built with the features of `where`, itself or a policy on it, or not
    for the images that it is to see.
    """
    module = component("pretrain.encoders", encoder.keys.model)
    own = {field.name for field in dataclasses.fields(module.Features)}
    chosen = encoder.features | where.features
    needs_saliency = encoder.config.needs_saliency
    try:
        if where is encoder and needs_saliency and not encoder.keys.data.startswith("saliency/"):
            raise ValueError(
                f"data: {encoder.keys.data} has no saliency maps, which {encoder.keys.model} "
                "learns on; name an entry of saliency that labels it"
            )
        _build(encoder.keys.model, encoder.config, json.dumps(chosen, sort_keys=True), shape)
        shown = envs.image_shape(where.keys.env) if where.table == "policies" else shape
        if shown != shape:
            raise ValueError(
                f"env: {where.keys.env} shows images {shown}, the encoder {encoder.name} sees "
                f"{shape}; name one pretrained on frames of that size"
            )
    except ValueError as error:
        inside = "features." if str(error).partition(":")[0] in own else ""
        return [f"{where.table}.{where.name}.{inside}{m}" for m in str(error).splitlines()]
    return []


@functools.cache  # several policies are on the same encoder, in several recipes
def _build(model: str, config: Any, features: str, shape: tuple[int, int, int]) -> None:
    """Build an encoder, untrained; raises ValueError where it does not fit the images."""
    from torch.nn import Identity  # takes seconds: an entry read alone does not wait for it

    module = component("pretrain.encoders", model)
    stand_in = [Identity()] if config.needs_saliency else []
    module.Encoder(config, module.Features(**json.loads(features)), shape, *stand_in)


def _frames_of(entry: Entry, params: Params) -> Entry | None:
    """The frames that its data goes back to, None where it has none or the way has mistakes."""
    table, _, name = entry.keys.data.partition("/")
    if table in ("annotations", "saliency"):
        labelled = params.find(table, name)
        name = labelled.keys.frames if labelled else ""
    return params.find("frames", name)
