"""Entries of params.yaml that are sound each for itself and cannot work together."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

from datasets import envs
from datasets.errors import FoveaError
from pipeline.config.tables import Entry, Params, feature_types, word_module


def misfits(params: Params) -> list[str]:
    """A line for each: more frames than a learner's steps, or annotations than frames; predictors
    that learn from maps and get frames; maps by what draws none, or was made for other images;
    encoders that don't fit the images they are to see, found by building them, untrained.
    """
    mistakes = [
        f"frames.{name}.count: {entry.keys.count}, must be at most the learner's {steps} steps"
        for name, entry in params.tables["frames"].items()
        if entry.keys.count > (steps := getattr(entry.config, "steps", entry.keys.count))
    ]
    for entry in params.tables["annotations"].values():
        frames = params.tables["frames"].get(entry.keys.frames)
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
        frames = _frames_of(entry, params)
        if frames:
            shape = envs.image_shape(frames.keys.env)
            mistakes += _misfit(entry, entry, shape)
            for policy in params.tables["policies"].values():
                if policy.keys.encoder == entry.name:
                    mistakes += _misfit(policy, entry, shape)
                    mistakes += _odd_pair(policy, entry, frames)
    return mistakes


def _odd_source(entry: Entry, params: Params) -> list[str]:
    """What keeps the source of an entry of saliency from labelling its frames."""
    where, label = f"saliency.{entry.name}.by", entry.inputs()["by"]
    table, _, name = label.partition("/")
    source = params.tables[table].get(name)
    if not source or table == "policies":
        return []  # told already
    if table == "encoders" and not _can_label(source):
        return [
            f"{where}: {label}, of model {source.keys.model}, has no saliency map; name one "
            "that has, such as mae"
        ]
    frames, own = params.tables["frames"].get(entry.keys.frames), _frames_of(source, params)
    if not frames or not own:
        return []
    sizes = envs.image_shape(own.keys.env), envs.image_shape(frames.keys.env)
    if sizes[0] != sizes[1]:
        return [f"{where}: {label} sees images {sizes[0]}, those of {frames.label} are {sizes[1]}"]
    return [
        f"{where}: {key} is {word} in {frames.label}, and {other} where {label} was made; write "
        f"?{key}={other} there or name another source"
        for key, word, other in _odd_views(frames, own)
    ]


def _odd_views(here: Entry, there: Entry) -> list[tuple[str, str, str]]:
    """What of an environment is shown otherwise in another of its suite: key, here, there."""
    seen, other = envs.shown(here.keys.env), envs.shown(there.keys.env)
    if seen["suite"] != other["suite"]:
        return []
    return [(key, word, other[key]) for key, word in seen.items() if word != other[key]]


def _can_label(encoder: Entry) -> bool:
    """Whether it draws maps itself, or carries what does."""
    own = word_module("pretrain.encoders", encoder.keys.model).Encoder
    return bool(own.labels or encoder.config.needs_saliency)


def _odd_pair(policy: Entry, encoder: Entry, frames: Entry) -> list[str]:
    """What keeps a policy's agent, encoder and environment from working together."""
    keys, mistakes = policy.keys, []
    where, kind = f"policies.{policy.name}", word_module("rl.agents", keys.agent).ACTIONS
    try:
        feature_types(encoder.keys.model, keys.agent, encoder.features | policy.features)
    except FoveaError as error:
        mistakes.append(f"{where}.agent: {error}")
    if envs.actions(keys.env) != kind:
        mistakes.append(
            f"{where}.agent: {keys.agent} needs {kind} actions, "
            f"those of {keys.env} are {envs.actions(keys.env)}"
        )
    info = word_module("pretrain.encoders", encoder.keys.model).Encoder.info
    if info and info not in envs.frame_info(keys.env):
        mistakes.append(f"{where}.env: {keys.env} tells no {info}, which {encoder.name} needs")
    return mistakes + [
        f"{where}.env: {key} is {word}, in the frames {frames.name} of its encoder it is {other}; "
        f"write ?{key}={other} or name other frames"
        for key, word, other in _odd_views(policy, frames)
    ]


def _misfit(where: Entry, encoder: Entry, shape: tuple[int, int, int]) -> list[str]:
    module = word_module("pretrain.encoders", encoder.keys.model)
    own = {field.name for field in dataclasses.fields(module.Features)}
    chosen = encoder.features | {k: v for k, v in where.features.items() if k in own}
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
        return [f"{where.table}.{where.name}.{inside}{error}"]
    return []


@functools.cache  # several policies are on the same encoder, in several recipes
def _build(model: str, config: Any, features: str, shape: tuple[int, int, int]) -> None:
    """Build an encoder, untrained; raises ValueError where it does not fit the images."""
    from torch.nn import Identity  # takes seconds: an entry read alone does not wait for it

    module = word_module("pretrain.encoders", model)
    stand_in = [Identity()] if config.needs_saliency else []
    module.Encoder(config, module.Features(**json.loads(features)), shape, *stand_in)


def _frames_of(entry: Entry, params: Params) -> Entry | None:
    """The frames that its data goes back to, None where the way there has mistakes."""
    table, _, name = entry.keys.data.partition("/")
    if table in ("annotations", "saliency"):
        made_of = params.tables[table].get(name)
        name = made_of.keys.frames if made_of else ""
    return params.tables["frames"].get(name)
