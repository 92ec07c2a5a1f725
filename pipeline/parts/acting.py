"""What an exam measures of a policy beside its maps: a control of them, and their faithfulness."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from datasets.saliency import Indices
from datasets.shards import FrameSet
from pipeline.parts.fixated import Scores, averaged
from pipeline.parts.labelled import Labelled
from pipeline.parts.maps import BATCH, FloatMaps
from pipeline.parts.policies import trained_policy
from rl.actor import Actor
from rl.agent import OnPolicyConfig
from rl.occlusion import changes
from rl.policy import Policy, checkpoints
from rl.watch import attention_map

KL, VALUE = "occlusion_kl", "occlusion_value"  # scores by name


def last_policy(folder: Path, seed: int) -> Policy:
    """A seed's policy with its last weights."""
    return trained_policy(folder, seed, checkpoints(folder / f"seed-{seed}")[-1][0])


def uniform_attention(policy: Policy, labelled: Labelled) -> FloatMaps:
    """Maps (M, H, W) of the annotated frames as if the policy attended to all places alike.

    They are constant unless receptive fields overlap, or the policy reads some patches only.
    """
    frames, indices = labelled.frames, labelled.indices
    if not policy.encoder.selects:  # the same for all frames
        one = _uniform(policy, frames, indices[:1])
        return np.repeat(one, len(indices), axis=0)
    parts = [indices[i : i + BATCH] for i in range(0, len(indices), BATCH)]
    return np.concatenate([_uniform(policy, frames, part) for part in parts])


def _uniform(policy: Policy, frames: FrameSet, indices: Indices) -> FloatMaps:
    actor, images = Actor(policy, len(indices)), frames.images[indices]
    actor.begin(images, {name: column[indices] for name, column in frames.info.items()})
    _, extras = actor.act(explore=False)
    uniform = policy.agent.core.uniform(extras)
    maps = attention_map(policy, actor.obs, uniform, (images.shape[1], images.shape[2]))
    assert maps is not None, "a source of saliency attends"
    result: FloatMaps = maps.float().cpu().numpy()
    return result


def occlusion(
    policy: Policy, labelled: Labelled, maps: Mapping[str, FloatMaps]
) -> dict[str, Scores]:
    """How the policy changes without the strongest cells of each of the maps (M, H, W), by their
    names; nothing of an agent that has no probabilities of actions.
    """
    if not isinstance(policy.spec.config, OnPolicyConfig):
        return {}
    values = changes(policy, labelled.frames, labelled.indices, np.stack(list(maps.values())))
    streams = labelled.frames.stream[labelled.indices]
    return {
        name: averaged([dict(zip((KL, VALUE), one, strict=True)) for one in each], streams)
        for name, each in zip(maps, values.tolist(), strict=True)
    }
