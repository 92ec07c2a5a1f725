"""Occlusion against a policy whose answer is known, and of real policies with memories."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from datasets import envs
from pretrain.encoders import pixels
from rl import occlusion
from rl.agents import impala, ppo
from rl.nets import fls, top_down
from rl.occlusion import REMOVED, changes, strongest
from rl.policy import Policy, Spec, make_policy
from tests.rl.test_watch import frame_set

SIDE, CELL = 28, (2, 3)  # pixels; the row and column of the only cell that the policy reads
ROWS, COLUMNS = slice(8, 12), slice(12, 16)  # its pixels, of cells of 4


class Reader:
    """Prefers action 0 by the brightness of one cell, and values it and all that it remembers."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.core = SimpleNamespace(reads=(), initial=lambda n: {"sum": torch.zeros(n)})

    def act(self, obs: Any, state: Any, first: Tensor, *, explore: bool) -> Any:
        light = obs["image"][:, 0, ROWS, COLUMNS].double().mean((1, 2)) / 255
        total = torch.where(first, 0, state["sum"]) + light
        logits = torch.stack([3 * light, torch.zeros_like(light)], 1)
        extras = {"log_policy": logits.log_softmax(1), "value": 2 * total}
        return logits.argmax(1), {"sum": total}, extras


class Plain:
    info = image_shape = None

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        return {"image": image}


def reader() -> Policy:
    return cast(Policy, SimpleNamespace(agent=Reader(), encoder=Plain(), continuous=False))


def noise(count: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 1), np.uint8)


def marks(*cells: tuple[int, int], side: int = SIDE) -> np.ndarray:
    """A map whose strongest cells are these."""
    grid = np.zeros((7, 7), np.float32)
    grid[tuple(zip(*cells, strict=True))] = 1
    return grid.repeat(side // 7, 0).repeat(side // 7, 1)


def cells_of(saliency: np.ndarray, rng: np.random.Generator) -> list[int]:
    cells = strongest(saliency, rng)
    assert cells is not None
    return list(cells.tolist())


HIT = [CELL, (0, 0), (6, 6), (0, 6), (6, 0)]
MISS = [(2, 2), (2, 4), (1, 3), (3, 3), (5, 5)]


def test_only_the_cell_that_the_policy_reads_changes_it_and_by_how_much() -> None:
    frames, indices = frame_set(noise(5), [0, 2]), np.array([0, 2, 4, 5])
    maps = np.stack([np.stack([marks(*each)] * 4) for each in (HIT, MISS)])
    values = changes(reader(), frames, indices, maps)
    assert values.shape == (2, 4, 2) and np.all(values[1] == 0)
    for place, index in enumerate(indices):
        image = frames.images[index, :, :, 0].astype(np.float64)
        light = [
            one[ROWS, COLUMNS].mean() / 255 for one in (image, np.rint(gaussian_filter(image, 2)))
        ]
        whole, rest = (np.exp([3 * one, 0]) / np.exp([3 * one, 0]).sum() for one in light)
        kl = (whole * np.log(whole / rest)).sum()
        # Of the value, what it remembers is the same on both sides.
        expected = kl, abs(2 * (light[0] - light[1]))
        assert values[0, place] == pytest.approx(expected, rel=1e-6) and kl > 0


def test_memory_is_that_of_the_whole_frames() -> None:
    """The changes of a frame are the same whatever was removed from those before it."""
    frames = frame_set(noise(5), [0])
    maps = np.stack([np.stack([marks(*HIT)] * 6)])
    alone = changes(reader(), frames, np.array([5]), maps[:, :1])
    assert np.array_equal(changes(reader(), frames, np.arange(6), maps)[:, 5], alone[:, 0])


def test_a_map_that_marks_nothing_is_undefined_and_equal_cells_are_random() -> None:
    frames = frame_set(noise(1), [0])
    constant, bad = np.full((SIDE, SIDE), 0.3, np.float32), marks(*HIT)
    bad[0, 0] = np.nan
    maps = np.stack([constant, bad, marks(*HIT)])[:, None]
    values = changes(reader(), frames, np.array([1]), maps)
    assert np.isnan(values[:2]).all() and np.isfinite(values[2]).all()
    rng = np.random.default_rng(0)
    chosen = np.array([cells_of(marks(CELL), rng) for _ in range(500)])
    assert np.all((chosen == 7 * CELL[0] + CELL[1]).sum(1) == 1)
    assert np.bincount(chosen.ravel(), minlength=49).min() > 20  # 500 * 4 / 48 = 42
    order = marks(*HIT)
    order[ROWS, COLUMNS] = 2
    assert chosen.shape[1] == REMOVED and set(cells_of(order, rng)) == {17, 0, 48, 6, 42}


REAL = {  # net -> its agent, files, images
    "fls": ("ppo", ppo, fls, "atari/Pong?screen=gray84"),
    "top_down": ("impala", impala, top_down, "atari/Pong?screen=native"),
}


@pytest.mark.parametrize("net", REAL)
def test_a_frame_without_a_change_changes_no_real_policy(
    monkeypatch: pytest.MonkeyPatch, net: str
) -> None:
    """With a stack of frames, or a memory and the last action and reward; else it changes."""
    agent, file, part, env = REAL[net]
    spec = Spec(env, agent, file.Config(), net, part.Config(), 6)
    channels, height, width = envs.image_shape(env)
    policy = make_policy(spec, pixels.Encoder(pixels.Config(), pixels.Features(), None))
    rng = np.random.default_rng(1)
    frames = frame_set(rng.integers(0, 256, (4, height, width, channels), np.uint8), [0, 2])
    maps, indices = rng.random((2, 3, height, width), np.float32), np.array([1, 3, 4])
    values = changes(policy, frames, indices, maps)
    assert np.isfinite(values).all() and (values > 0).all()
    monkeypatch.setattr(occlusion, "blur", lambda image: image)
    np.testing.assert_allclose(changes(policy, frames, indices, maps), 0, atol=1e-6)
