"""Masks on a network's last map, against a plain multiplication, in every net that takes them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pretrain.encoder import Kind, Obs
from rl import nets
from rl.agents import rainbow
from rl.masks import masked, masked_by
from rl.nets import data_efficient_cnn, deep_cnn, masked_cnn
from rl.stack import FrameStack
from tests.rl import fakes

# A net, the side of its images, its last map's side, and what is above that map.
NETS: dict[str, tuple[Any, int, int]] = {
    "data_efficient_cnn": (data_efficient_cnn.Config(channels=(4, 6)), 50, 2),
    "deep_cnn": (deep_cnn.Config(layers=3, filters=4, width=8), 20, 5),
    "masked_cnn": (masked_cnn.Config(channels=(4, 6, 4), width=8), 44, 2),
}
EVERY = pytest.mark.parametrize("name", sorted(NETS))


def stack_of(side: int, grid: int, seed: int = 0) -> Obs:
    """Two stacks of three frames, each with a mask."""
    generator = torch.Generator().manual_seed(seed)
    shape = 2, 3, 1, side, side
    return {
        "image": torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
        "attention": torch.rand(2, 3, grid, grid, generator=generator),
    }


def net_of(name: str, stack: Obs) -> Any:
    torch.manual_seed(0)
    example = {key: value[:, 0] for key, value in stack.items()}
    core = nets.make(name, NETS[name][0], example, 3, 3)
    assert isinstance(core, FrameStack)
    return core.net


def plain(net: Any, features: Tensor) -> Tensor:
    """What is above the last map."""
    vector: Tensor = features.flatten(1)
    return net.project(vector) if hasattr(net, "project") else vector


@EVERY
def test_the_newest_frames_mask_multiplies_the_last_map(name: str) -> None:
    _, side, grid = NETS[name]
    stack = stack_of(side, grid)
    net = net_of(name, stack)
    image = stack["image"].flatten(1, 2)
    last = net.convolutions(image if name != "deep_cnn" else image.float() / 255)
    assert last.shape[2:] == (grid, grid)
    expected = last.clone()
    for b in range(2):
        for y in range(grid):
            for x in range(grid):
                expected[b, :, y, x] = last[b, :, y, x] * stack["attention"][b, -1, y, x]
    features, extras = net(stack)
    torch.testing.assert_close(features, plain(net, expected))
    assert torch.equal(extras["attention"], stack["attention"][:, -1:])
    older = stack | {"attention": stack["attention"].clone()}
    older["attention"][:, :-1] = 0
    assert torch.equal(net(older)[0], features)


@EVERY
def test_an_open_mask_changes_nothing_and_a_closed_one_hides_all(name: str) -> None:
    stack = stack_of(NETS[name][1], 7)
    net = net_of(name, stack)
    opened, closed = (stack | {"attention": stack["attention"] * 0 + value} for value in (1, 0))
    other = stack_of(NETS[name][1], 7, seed=1)
    hidden = net(closed)[0]
    assert torch.equal(hidden, net(other | {"attention": closed["attention"]})[0])
    assert not torch.allclose(net(opened)[0], net(other | {"attention": opened["attention"]})[0])
    if name != "masked_cnn":  # has a mask always
        unmasked = nets.make(name, NETS[name][0], {"image": stack["image"][:, 0]}, 3, 3)
        assert isinstance(unmasked, FrameStack)
        unmasked.net.load_state_dict(net.state_dict())
        features, extras = unmasked.net({"image": stack["image"]})
        torch.testing.assert_close(net(opened)[0], features)
        assert extras == {}


def triangle(cells: int, size: int) -> Tensor:
    """The weights (size, cells) of linear interpolation, stretched over what it averages."""
    ratio = cells / size
    reach = max(ratio, 1.0)
    rows = torch.zeros(size, cells)
    for i in range(size):
        for j in range(cells):
            rows[i, j] = max(0.0, 1 - abs((j + 0.5) - (i + 0.5) * ratio) / reach)
    return rows / rows.sum(1, keepdim=True)


@pytest.mark.parametrize(("cells", "size"), [(7, 3), (7, 1), (3, 7), (7, 10), (5, 5)])
def test_a_mask_on_another_grid_is_interpolated(cells: int, size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(2, 1, cells, cells, generator=generator)
    features = torch.randn(2, 3, size, size, generator=generator)
    weights = triangle(cells, size)
    expected = features * (weights @ mask @ weights.T)
    torch.testing.assert_close(masked(features, mask), expected, atol=1e-5, rtol=1e-5)


def test_a_mask_leaves_the_precision_of_the_map() -> None:
    features, mask = torch.randn(2, 3, 4, 4).bfloat16(), torch.rand(2, 1, 4, 4)
    assert masked(features, mask).dtype == torch.bfloat16


def test_features_without_a_mask_stay() -> None:
    features = torch.randn(2, 3, 4, 4)
    same, extras = masked_by(features, {"image": torch.zeros(2, 3, 1, 9, 9)})
    assert same is features and extras == {}


def test_the_masked_map_is_what_rainbow_learns_from() -> None:
    """The convolutions learn nothing where the mask is closed."""

    class Closed(fakes.Pixels):
        kind: Kind = "masked"

        def forward(self, image: Tensor) -> Obs:
            return {"image": image, "attention": torch.zeros(len(image), 7, 7)}

    learner = fakes.policy(fakes.SMALL, Closed())
    assert learner.spec.net == "data_efficient_cnn" == rainbow.NETS["masked"]
    net: nn.Module = learner.agent.policy.get_submodule("net")
    image = torch.zeros(2, 3, 3, fakes.SIZE, fakes.SIZE, dtype=torch.uint8)
    features, _ = net({"image": image, "attention": torch.zeros(2, 3, 7, 7)})
    torch.autograd.backward(features.sum())
    assert all(not p.grad.any() for p in net.parameters() if p.grad is not None)
    assert math.isclose(features.abs().max().item(), 0)
