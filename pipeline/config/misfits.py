"""Entries of params.yaml that are valid by themselves and cannot work together."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

from datasets import envs
from datasets.errors import FoveaError
from pipeline.config.nets import odd_net, thresholds
from pipeline.config.sources import frames_of, odd_carried, odd_exam, odd_source, odd_views
from pipeline.config.tables import Entry, Params, component


def misfits(params: Params) -> list[str]:
    """A line for each mistake: more frames than a learner's steps, or annotations than frames;
    annotators that do not know the game; predictors that are trained on maps and get frames; a
    source of saliency, for labels or an exam, without maps or for other images; policies whose
    agent, net, encoder and environment don't fit; encoders and nets that don't fit their images,
    found out by building them, untrained.
    """
    mistakes = [
        f"frames.{name}.count: {entry.keys.count}, must be at most the learner's {steps} steps"
        for name, entry in params.tables["frames"].items()
        if entry.keys.count > (steps := getattr(entry.config, "steps", entry.keys.count))
    ]
    for entry in params.tables["annotations"].values():
        if frames := params.find("frames", entry.keys.frames):
            mistakes += _odd_annotator(entry, frames)
    for entry in params.tables["predictors"].values():
        if entry.config.learns and entry.keys.data.startswith("frames/"):
            mistakes.append(
                f"predictors.{entry.name}.data: {entry.keys.model} is trained on maps, but "
                f"{entry.keys.data} has none; name an entry of annotations or saliency"
            )
    for entry in params.tables["saliency"].values():
        frames = params.find("frames", entry.keys.frames)
        mistakes += odd_source(f"saliency.{entry.name}.by", entry.keys.by, frames, params)
    for entry in params.tables["encoders"].values():
        if frames := frames_of(entry, params):
            mistakes += _misfit(entry, entry, envs.image_shape(frames.keys.env))
        mistakes += odd_carried(entry, params)
    for policy in params.tables["policies"].values():
        if encoder := params.find("encoders", policy.keys.encoder):
            mistakes += _odd_policy(policy, encoder, frames_of(encoder, params))
    for exam in params.tables["exams"].values():
        mistakes += odd_exam(exam, params)
    return mistakes


def _odd_annotator(entry: Entry, frames: Entry) -> list[str]:
    """More annotations than frames, or an annotator for other environments."""
    mistakes = []
    if entry.keys.count > frames.keys.count:
        mistakes.append(
            f"annotations.{entry.name}.count: {entry.keys.count}, must be at most the "
            f"{frames.keys.count} of {frames.label}"
        )
    try:
        info = component("datasets.sources", frames.keys.source).FRAME_INFO
        annotator = component("datasets.annotation", entry.keys.annotator)
        annotator.check(frames.keys.env, info or envs.frame_info(frames.keys.env))
    except FoveaError as error:
        mistakes.append(f"annotations.{entry.name}: {error}")
    return mistakes


def _odd_policy(policy: Entry, encoder: Entry, frames: Entry | None) -> list[str]:
    """The reasons why a policy's agent, encoder and environment cannot work together."""
    keys, where = policy.keys, f"policies.{policy.name}"
    mistakes = []
    if frames:
        mistakes += _misfit(policy, encoder, envs.image_shape(frames.keys.env))
    kind = component("rl.agents", keys.agent).ACTIONS
    if envs.actions(keys.env) != kind:
        mistakes.append(
            f"{where}.agent: {keys.agent} needs {kind} actions, but "
            f"those of {keys.env} are {envs.actions(keys.env)}"
        )
    info = component("pretrain.encoders", encoder.keys.model).Encoder.info
    if info and info not in envs.frame_info(keys.env):
        mistakes.append(f"{where}.env: {keys.env} has no {info}, which {encoder.name} needs")
    mistakes += odd_net(policy, encoder) + _odd_sampling(policy)
    mistakes += _odd_threshold(policy, encoder) + _odd_evaluate_env(policy)
    if not frames:
        return mistakes
    return mistakes + [
        f"{where}.env: {key} is {value}, but {other} in its encoder's frames {frames.name}; "
        f"write ?{key}={other} or name other frames"
        for key, value, other in odd_views(policy, frames)
    ]


def _odd_sampling(policy: Entry) -> list[str]:
    """The reason why a policy's actions cannot be sampled: its agent learns none."""
    from rl.agent import (
        OnPolicyConfig,
    )  # takes seconds, and reading a single entry does not need it

    if not policy.keys.sample or isinstance(policy.config, OnPolicyConfig):
        return []
    return [
        f"policies.{policy.name}.sample: true, must be false with agent {policy.keys.agent}: only "
        "on-policy agents have probabilities of actions"
    ]


def _odd_threshold(policy: Entry, encoder: Entry) -> list[str]:
    """The reason why hard attention is impossible: the policy's net has no threshold."""
    threshold = policy.keys.attention_threshold
    if threshold is None or thresholds(policy, encoder):
        return []
    net = policy.net.name if policy.net else ""
    return [
        f"policies.{policy.name}.attention_threshold: {threshold}, but the net {net} has no "
        "attention with a threshold; leave the key out, or use the net top_down"
    ]


def _odd_evaluate_env(policy: Entry) -> list[str]:
    """Differences between the environments of training and of evaluation that a policy notices."""
    ours, other = policy.keys.env, policy.keys.evaluate_env
    if other is None:
        return []
    here, there = envs.rendering(other), envs.rendering(ours)
    views = [
        f"{key} is {here.get(key)}, but {there[key]}"
        for key in there
        if here.get(key) != there[key]
    ]
    if not views and envs.image_shape(other) != envs.image_shape(ours):
        views = [f"images are {envs.image_shape(other)}, but {envs.image_shape(ours)}"]
    if not views and envs.action_set(other) != envs.action_set(ours):
        views = ["the actions are others than"]
    return [
        f"policies.{policy.name}.evaluate_env: in {other} {view} in {ours}, where the policy is "
        "trained; name an environment with the same screen and actions"
        for view in views
    ]


def _misfit(where: Entry, encoder: Entry, shape: tuple[int, int, int]) -> list[str]:
    """The reasons why an encoder cannot be built with the features of `where`, itself or a policy
    on it, or for its images.
    """
    module = component("pretrain.encoders", encoder.keys.model)
    own = {field.name for field in dataclasses.fields(module.Features)}
    features = encoder.features | where.features
    needs_saliency = encoder.config.needs_saliency
    try:
        if where is encoder and needs_saliency and not encoder.keys.data.startswith("saliency/"):
            raise ValueError(
                f"data: {encoder.keys.data} has no saliency maps, which {encoder.keys.model} is "
                "trained on; name an entry of saliency that labels it"
            )
        _build(encoder.keys.model, encoder.config, json.dumps(features, sort_keys=True), shape)
        images = envs.image_shape(where.keys.env) if where.table == "policies" else shape
        if images != shape:
            raise ValueError(
                f"env: {where.keys.env} has images {images}, but the encoder {encoder.name} is for "
                f"{shape}; name one pretrained on frames of that size"
            )
    except ValueError as error:
        inside = "features." if str(error).partition(":")[0] in own else ""
        return [f"{where.table}.{where.name}.{inside}{m}" for m in str(error).splitlines()]
    return []


@functools.cache  # several policies are on the same encoder, in several recipes
def _build(model: str, config: Any, features: str, shape: tuple[int, int, int]) -> None:
    """Build an encoder, untrained. Raises ValueError if it does not fit the images."""
    from torch.nn import Identity  # takes seconds, and reading a single entry does not need it

    module = component("pretrain.encoders", model)
    stand_in = [Identity()] if config.needs_saliency else []
    module.Encoder(config, module.Features(**json.loads(features)), shape, *stand_in)
