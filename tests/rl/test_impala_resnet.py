"""IMPALA's deep residual network against its layers one by one, and the LSTM above it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rl import nets
from rl.actor_critic import ActorCritic
from rl.nets.impala_resnet import Config, Net
from rl.recurrent import Recurrent
from rl.stack import FrameStack

ACTIONS = 3


def frames(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def make(lstm: bool, sides: tuple[int, int] = (19, 26), stack: int = 1) -> Any:
    torch.manual_seed(0)
    return nets.make("impala_resnet", Config(lstm), {"image": frames(1, 3, *sides)}, stack, ACTIONS)


@pytest.mark.parametrize(
    ("lstm", "actions", "count"),
    [(False, 4, 4_522_821), (False, 18, 4_526_419), (True, 4, 5_054_277), (True, 18, 5_072_211)],
)
def test_its_parameters_are_those_of_figure_3(lstm: bool, actions: int, count: int) -> None:
    """Convolutions have 97,600, Linear 4,423,936, an LSTM with two biases 1,024 (n + 515)."""
    with torch.device("meta"):
        example = {"image": torch.zeros(1, 3, 210, 160, dtype=torch.uint8)}
        core = nets.make("impala_resnet", Config(lstm), example, 1, actions)
        network = ActorCritic(core, actions)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert 97_600 + 4_423_936 + 257 * (actions + 1) + 1_024 * (actions + 515) * lstm == count


@pytest.mark.parametrize("sides", [(16, 24), (19, 26), (8, 8), (13, 15)])
def test_it_is_the_plain_network(sides: tuple[int, int]) -> None:
    """The maxima by a loop over windows, which begin where TensorFlow's do."""
    net = make(False, sides, stack=2).net
    image = frames(2, 2, 3, *sides)
    x = image.flatten(1, 2).float() / 255
    for section in net.sections:
        x = same_maximum(section.convolution(x))
        for block in section.blocks:
            x = x + block.second(F.relu(block.first(F.relu(x))))
    expected = F.relu(net.project(F.relu(x).flatten(1)))
    features, extras = net({"image": image})
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)
    assert extras == {} and features.shape == (2, 256)


def same_maximum(x: Tensor) -> Tensor:
    rows, columns = (-(-side // 2) for side in x.shape[2:])
    starts = [-((2 * -(-side // 2) + 1 - side) // 2) for side in x.shape[2:]]
    out = torch.empty(*x.shape[:2], rows, columns)
    for i in range(rows):
        for j in range(columns):
            top, left = 2 * i + starts[0], 2 * j + starts[1]
            window = x[:, :, max(top, 0) : top + 3, max(left, 0) : left + 3]
            out[:, :, i, j] = window.amax((2, 3))
    return out


def test_the_lstm_reads_features_last_action_and_reward() -> None:
    core = make(True)
    assert isinstance(core, Recurrent) and isinstance(make(False), FrameStack)
    image = frames(3, 2, 3, 19, 26)
    action, reward = torch.tensor([[0, 1], [2, 1], [1, 0]]), torch.randn(3, 2)
    first = torch.tensor([[True, True], [False, False], [False, True]])
    obs = {"image": image, "action": action, "reward": reward}
    features, state, _ = core(obs, core.initial(2), first)
    h, c = torch.zeros(2, 256), torch.zeros(2, 256)
    for t in range(3):
        same = ~first[t][:, None]
        vector, _ = core.frames.net({"image": image[t][:, None]})
        last = torch.cat([F.one_hot(action[t], 3), reward[t].clamp(-1, 1)[:, None]], 1) * same
        h, c = core.lstm(torch.cat([vector, last], 1), (h * same, c * same))
        torch.testing.assert_close(features[t], h, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(state["memory"], h, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(state["memory_cell"], c, atol=1e-5, rtol=1e-4)
    assert torch.equal(state["image"][:, 0], image[2])


def test_smaller_images_are_refused() -> None:
    with pytest.raises(ValueError, match="image: 7x160, must be at least 8x8"):
        Net(Config(), {"image": frames(1, 3, 7, 160)}, 1)
