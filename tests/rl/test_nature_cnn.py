"""The convolutions of the on-policy agents: sizes, initial weights, and bfloat16."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pretrain.modules.linear import has_bfloat16
from pretrain.modules.precision import autocast
from rl.actor_critic import ActorCritic
from rl.fast.precision import scaled
from rl.nets.nature_cnn import Config, Net
from rl.stack import FrameStack


def frames(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def make(config: Config = Config(), shape: tuple[int, int, int] = (1, 84, 84)) -> Net:  # noqa: B008
    torch.manual_seed(0)
    return Net(config, {"image": frames(1, *shape)}, 4)


@pytest.mark.parametrize(
    ("channels", "actions", "count"),
    [
        ((32, 64, 64), 4, 1_686_693),
        ((32, 64, 64), 9, 1_689_258),
        ((32, 64, 32), 4, 865_413),
        ((32, 64, 32), 9, 867_978),
        ((32, 64, 32), 18, 872_595),
    ],
)
def test_it_has_as_many_parameters_as_the_papers(
    channels: tuple[int, int, int], actions: int, count: int
) -> None:
    core = FrameStack(make(Config(channels)), 4, {"image": frames(1, 1, 84, 84)})
    network = ActorCritic(core, actions)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_it_is_the_plain_network() -> None:
    net, image = make(), frames(3, 4, 1, 84, 84)
    x = image[:, :, 0].float() / 255
    layers = [layer for layer in net.convolutions if isinstance(layer, nn.Conv2d)]
    for layer, stride in zip(layers, (4, 2, 1), strict=True):
        x = F.relu(F.conv2d(x, layer.weight, layer.bias, stride=stride))
    expected = F.relu(net.project[0](x.flatten(1)))
    features, extras = net({"image": image})
    assert features.shape == (3, net.width) and extras == {}
    torch.testing.assert_close(features, expected)


def test_weights_begin_orthogonal_and_biases_zero() -> None:
    net = make()
    network = ActorCritic(FrameStack(net, 4, {"image": frames(1, 1, 84, 84)}), 4)
    gains = {"actor": 0.01, "critic": 1.0}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight = layer.weight.flatten(1)
            gram = weight @ weight.T if len(weight) <= weight.shape[1] else weight.T @ weight
            expected = gains.get(name, math.sqrt(2)) ** 2 * torch.eye(len(gram))
            torch.testing.assert_close(gram, expected, atol=1e-4, rtol=0, msg=name)
            assert layer.bias is not None and not layer.bias.any()


@pytest.mark.parametrize("shape", [(3, 96, 96), (1, 36, 36), (3, 210, 160)])
def test_it_takes_any_image_that_is_large_enough(shape: tuple[int, int, int]) -> None:
    net = make(shape=shape)
    assert net({"image": frames(2, 4, *shape)})[0].shape == (2, 512)


def test_smaller_images_are_refused() -> None:
    with pytest.raises(ValueError, match="image: 35x84, must be at least 36x36"):
        make(shape=(1, 35, 84))


def test_bytes_are_scaled_exactly_in_float32() -> None:
    image = frames(2, 4, 5, 6)
    assert torch.equal(scaled(image), image.float() / 255)


def test_bfloat16_is_close_and_used_only_on_request() -> None:
    net, image = make(), {"image": frames(8, 4, 1, 84, 84)}
    exact, _ = net(image)
    with autocast("float32", torch.device("cpu")):
        assert torch.equal(net(image)[0], exact)
    with autocast("auto", torch.device("cpu")):
        half, _ = net(image)
    assert half.dtype == (torch.bfloat16 if has_bfloat16() else torch.float32)
    assert (half - exact).norm() / exact.norm() < 0.02
