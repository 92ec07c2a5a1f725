"""The attention of a policy on recorded frames equals that while it played them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.errors import FoveaError
from datasets.shards import FrameSet
from pretrain.encoder import EncoderConfig, Kind, Obs
from pretrain.encoders import attention
from rl import play
from rl.actor import Actor
from rl.agents import a2c, ppo
from rl.nets import fls, masked_cnn
from rl.policy import Spec, make_policy
from rl.stack import FrameStack
from rl.watch import watch
from tests.rl import fakes


class Patches(fakes.Tokens):
    """Its tokens are patches 7 and 3 of a grid of five by five."""

    def __init__(self) -> None:
        super().__init__()
        self.config = PatchConfig()


class PatchConfig(EncoderConfig):
    patch = 5


@pytest.fixture(autouse=True)
def _chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.envs.single", fakes.single_chain)


def frame_set(images: np.ndarray, episodes: list[int]) -> FrameSet:
    """Frames of stream 1, after one of stream 0."""
    images = np.concatenate([images[:1], images])
    count, lengths = len(images), np.diff([*episodes, len(images) - 1])
    steps = np.concatenate([[0], *(np.arange(length) for length in lengths)])
    return FrameSet(
        images=images,
        action=np.zeros(count, np.int64),
        reward=np.zeros(count, np.float32),
        terminated=np.zeros(count, np.bool_),
        truncated=np.zeros(count, np.bool_),
        episode=np.zeros(count, np.int32),
        step=steps.astype(np.int32),
        stream=np.array([0] + [1] * (count - 1), np.int32),
        info={},
    )


def test_the_maps_are_the_attention_while_playing() -> None:
    """Two episodes: the recurrent state is reset between them."""
    policy = fakes.policy(encoder=Patches())
    played = play.record(policy, seed=2, epsilon=0.3)
    images = np.stack([frame.image for frame in played])
    length = len(images)
    frames = frame_set(np.concatenate([images, images]), [0, length])
    maps = np.stack(list(watch(policy, frames, 1)))
    assert maps.shape == (2 * length, 25, 25) and maps.dtype == np.float32
    assert maps.min() == 0 and (maps.max((1, 2)) == 1).all()
    for row, frame in zip(maps, played * 2, strict=True):
        assert frame.attention is not None
        grid = np.zeros(25, np.float32)
        grid[[7, 3]] = frame.attention / frame.attention.max()
        expected = grid.reshape(5, 5).repeat(5, axis=0).repeat(5, axis=1)
        np.testing.assert_allclose(row, expected, rtol=1e-5)


def test_recorded_actions_and_rewards_are_those_before_a_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames = frame_set(np.zeros((4, 25, 25, 3), np.uint8), [0, 2])
    frames = replace(frames, action=np.arange(5), reward=np.arange(5, dtype=np.float32))
    calls: list[tuple[int, float, bool]] = []
    real = Actor.observe

    def observe(self: Actor, *inputs: object, **done: object) -> None:
        calls.append(
            tuple(np.asarray(done[key])[0].item() for key in ("action", "reward", "first"))
        )
        real(self, *inputs, **done)  # type: ignore[arg-type]

    monkeypatch.setattr(Actor, "observe", observe)
    list(watch(fakes.policy(encoder=Patches()), frames, 1))
    assert calls == [(1, 1.0, False), (2, 2.0, True), (3, 3.0, False)]


def test_a_mask_is_the_map_without_scaling() -> None:
    """Each cell covers its share of the frame, and other frames have no effect."""
    shape = (1, 84, 84)
    encoder = attention.Pretraining(attention.Config(), shape).encoder()
    spec = Spec("fake/Chain", "a2c", a2c.Config(), "masked_cnn", masked_cnn.Config(), 3)
    images = np.random.default_rng(0).integers(0, 256, (4, 84, 84, 1), np.uint8)
    frames = frame_set(images, [0, 2])
    maps = np.stack(list(watch(make_policy(spec, encoder), frames, 1)))
    expected = encoder.saliency_map(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
    np.testing.assert_array_equal(maps, expected[:, 0].numpy())
    assert maps.max() < 1


class Masks(fakes.LargePixels):
    """Masks that depend on the image: bright where the agent is."""

    kind: Kind = "masked"

    def forward(self, image: Tensor) -> Obs:
        return {"image": image, "attention": image[:, 0, ::6, ::6].float() / 255}


@pytest.mark.parametrize("mask", ["frozen", "joint", "top_down"])
def test_the_map_of_a_masked_policy_is_its_mask_each_cell_over_its_share(
    mask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes.Chain, "size", fakes.LARGE)
    config = a2c.Config(steps=80, stack=2)
    encoder = Masks() if mask == "frozen" else fakes.LargePixels()
    policy = fakes.policy(config, encoder, agent="a2c", net=masked_cnn.Config(mask=mask, width=16))
    played = play.record(policy, seed=2, epsilon=0.3)
    images = np.stack([frame.image for frame in played])
    maps = np.stack(list(watch(policy, frame_set(images, [0]), 1)))
    assert maps.shape == (len(images), 36, 36)
    net: Any = policy.agent.core
    for row, frame in zip(maps, played, strict=True):
        image = torch.from_numpy(frame.image).permute(2, 0, 1)[None]
        if mask == "frozen":
            cells = encoder(image)["attention"][0]
        else:
            cells = net.net.mask(image.float() / 255)[0, 0].detach()
        side = 36 // len(cells)
        expected = cells.numpy().repeat(side, axis=0).repeat(side, axis=1)
        np.testing.assert_allclose(row, expected, atol=1e-5)
        assert frame.attends and frame.saliency is not None and frame.selected is None
        np.testing.assert_allclose(frame.saliency, row, atol=1e-6)


@pytest.mark.parametrize("variant", ["sparse", "sparse_each", "dense"])
def test_the_map_of_a_free_lunch_policy_is_its_attention_spread_over_the_frame(
    variant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes.Chain, "size", fakes.LARGE)
    config = ppo.Config(steps=1024, stack=2)
    policy = fakes.policy(config, fakes.LargePixels(), agent="ppo", net=fls.Config(variant))
    played = play.record(policy, seed=2, epsilon=0.3)
    images = np.stack([frame.image for frame in played])
    maps = np.stack(list(watch(policy, frame_set(images, [0]), 1)))
    assert maps.shape == (len(images), 36, 36) and maps.dtype == np.float32
    assert (maps.max((1, 2)) == 1).all() and maps.min() >= 0
    net, before = cast(FrameStack, policy.agent.core).net, np.zeros_like(images[0])
    for row, frame in zip(maps, played, strict=True):
        pair = torch.from_numpy(np.stack([before, frame.image])).permute(0, 3, 1, 2)[None]
        saliency = net({"image": pair})[1]["attention"]
        np.testing.assert_allclose(row, saliency[0, 0].numpy(), atol=1e-5)
        assert frame.attends and frame.saliency is not None
        np.testing.assert_allclose(frame.saliency, row, atol=1e-6)
        before = frame.image


def test_a_policy_without_attention_is_refused() -> None:
    frames = frame_set(np.zeros((2, 25, 25, 3), np.uint8), [0])
    with pytest.raises(FoveaError, match=r"fake/Chain.*data_efficient_cnn attends to no part"):
        next(watch(fakes.policy(encoder=fakes.Pixels()), frames, 1))
