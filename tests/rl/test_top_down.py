"""The top-down attention network: its equations against loops, its memory and its geometry."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.errors import FoveaError
from pretrain.encoder import Obs
from pretrain.modules.linear import has_bfloat16
from rl.actor_critic import ActorCritic
from rl.agents import a2c
from rl.net import State
from rl.nets import top_down
from rl.nets.top_down import Config, Net, SameConv2d
from rl.recurrent import ConvLSTM, initialise, last_step
from rl.watch import attention_map, watch
from tests.rl import fakes
from tests.rl.test_watch import frame_set

ACTIONS = 3
SIDES = 40, 48  # pixels; 5 x 6 cells
KINDS: Any = ("top_down", "fixed", "key_norm")
EVERY = pytest.mark.parametrize("queries", KINDS)


def make(queries: Any = "top_down", sides: tuple[int, int] = SIDES, **config: Any) -> Any:
    torch.manual_seed(0)
    example = {"image": torch.zeros(1, 3, *sides, dtype=torch.uint8)}
    return Net(Config(queries=queries, **config), example, ACTIONS)


def observations(steps: int, batch: int, seed: int = 0) -> Obs:
    generator = torch.Generator().manual_seed(seed)
    shape = steps, batch, 3, *SIDES
    return {
        "image": torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
        "action": torch.randint(ACTIONS, (steps, batch), generator=generator),
        "reward": torch.randn(steps, batch, generator=generator),
    }


def beginnings(steps: int, batch: int, *rows: tuple[int, int]) -> Tensor:
    first = torch.zeros(steps, batch, dtype=torch.bool)
    for row in rows:
        first[row] = True
    return first


@pytest.mark.parametrize(("actions", "count"), [(4, 2_278_661), (9, 2_281_866), (18, 2_287_635)])
def test_it_has_as_many_parameters_as_table_2_gives(actions: int, count: int) -> None:
    example = {"image": torch.zeros(1, 3, 210, 160, dtype=torch.uint8)}
    with torch.device("meta"):
        network = ActorCritic(Net(Config(), example, actions), actions)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    core: Any = network.core
    assert core.cells == (27, 20)
    assert core.initial(2)["vision"].shape == (2, 128, 27, 20)


def test_equation_1_is_two_same_convolutions_and_a_convolutional_lstm() -> None:
    """One frame after another, the gates written out."""
    net, obs = make(), observations(3, 2)
    state, first = net.initial(2), beginnings(3, 2, (0, 0), (0, 1))
    maps, hidden, cell = net.see(obs["image"], state["vision"], state["vision_cell"], first)
    h, c = torch.zeros(2, 128, 5, 6), torch.zeros(2, 128, 5, 6)
    one, _, two, _ = net.convolutions
    weight, bias = net.vision.gates.weight, net.vision.gates.bias
    for image, output in zip(obs["image"], maps, strict=True):
        x = F.pad(image.float() / 255, (2, 2, 2, 2))  # 40/4 and 48/4 positions need 4 more
        x = F.relu(F.conv2d(x, one.weight, one.bias, stride=4))
        x = F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1)), two.weight, two.bias, stride=2))
        gates = F.conv2d(x, weight[:, :64], bias, padding=1)
        i, f, g, o = (gates + F.conv2d(h, weight[:, 64:], padding=1)).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        torch.testing.assert_close(output, h, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(hidden, h, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(cell, c, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [33, 40, 53, 105, 160, 210, 214, 230])
@pytest.mark.parametrize(("kernel", "stride"), [(8, 4), (4, 2)])
def test_same_padding_is_tensorflows(size: int, kernel: int, stride: int) -> None:
    """⌈size/stride⌉ positions; as little as that takes, the odd pixel after the image."""
    before, after = top_down.padding(size, kernel, stride)
    assert (before + size + after - kernel) // stride + 1 == math.ceil(size / stride)
    assert (before + size + after - kernel) % stride == 0
    assert after - before in (0, 1)
    plain, layer = nn.Conv2d(1, 1, kernel, stride), SameConv2d(1, 1, kernel, stride)
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(1, 1, size, 33)
    columns = top_down.padding(33, kernel, stride)
    expected = plain(F.pad(x, (*columns, before, after)))
    torch.testing.assert_close(layer(x), expected)


def test_equation_2_is_an_mlp_of_the_lstms_last_output() -> None:
    net, memory = make(), torch.randn(2, 256)
    a, b, c = (layer for layer in net.query if isinstance(layer, nn.Linear))
    assert [a.out_features, b.out_features, c.out_features] == [256, 128, 288]
    vector = c(F.relu(b(F.relu(a(memory)))))
    query = net.ask(memory)
    assert query.shape == (2, 4, 72)
    for head in range(4):
        torch.testing.assert_close(query[:, head], vector[:, 72 * head : 72 * (head + 1)])


def test_equations_3_to_5_are_loops_over_cells_and_channels() -> None:
    net = make()
    query, keys, values = torch.randn(2, 4, 72), torch.randn(2, 8, 30), torch.randn(2, 120, 30)
    weights = net.attend(query, keys)
    answer = top_down.answers(weights, values, net.basis)
    assert answer.shape == (2, 4, 184)
    for row in range(2):
        key = torch.cat([keys[row], net.basis])
        value = torch.cat([values[row], net.basis])
        for head in range(4):
            logit = [
                sum(float(query[row, head, c] * key[c, cell]) for c in range(72))
                for cell in range(30)
            ]
            total = sum(math.exp(each) for each in logit)
            attention = [math.exp(each) / total for each in logit]
            torch.testing.assert_close(weights[row, head], torch.tensor(attention))
            for channel in (0, 60, 119, 120, 183):
                expected = sum(attention[cell] * float(value[channel, cell]) for cell in range(30))
                assert float(answer[row, head, channel]) == pytest.approx(expected, abs=1e-4)


@EVERY
def test_equation_6_is_an_lstm_of_answers_queries_last_action_and_reward(queries: Any) -> None:
    """Two steps; the query of each is of the output before it."""
    net, obs = make(queries), observations(2, 3)
    state, first = net.initial(3), beginnings(2, 3, (0, 0), (0, 1), (0, 2))
    features, after, extras = net(obs, state, first)
    maps, _, _ = net.see(obs["image"], state["vision"], state["vision_cell"], first)
    h, c = torch.zeros(3, 256), torch.zeros(3, 256)
    for step in range(2):
        keys, values = maps[step][:, :8].flatten(2), maps[step][:, 8:].flatten(2)
        query = net.ask(h)
        weights = net.attend(query, keys)
        torch.testing.assert_close(extras["attention"][step].flatten(2), weights)
        answer = top_down.answers(weights, values, net.basis)
        last = torch.zeros(3, ACTIONS + 1)
        if step:
            last[range(3), obs["action"][step]] = 1
            last[:, -1] = obs["reward"][step].clamp(-1, 1)
        x = torch.cat([answer.flatten(1), query.flatten(1), last], dim=1)
        one, two = net.process[0], net.process[2]
        h, c = net.memory(F.relu(two(F.relu(one(x)))), (h, c))
        torch.testing.assert_close(features[step], F.relu(net.output(h)))
    torch.testing.assert_close(after["memory"], h)
    torch.testing.assert_close(after["memory_cell"], c)


def test_equation_7_is_a_product_of_waves() -> None:
    basis = top_down.spatial_basis(27, 20)
    assert basis.shape == (64, 27, 20)
    waves = [(math.cos, u) for u in range(1, 5)] + [(math.sin, u) for u in range(1, 5)]
    for row, (one, u) in enumerate(waves):
        for column, (other, v) in enumerate(waves):
            for i, j in ((0, 0), (3, 19), (26, 7)):
                expected = one(math.pi * u * i / 27) * other(math.pi * v * j / 20)
                assert float(basis[8 * row + column, i, j]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("sides", [(27, 20), (5, 5)])
def test_the_basis_tells_all_cells_apart_and_has_one_norm(sides: tuple[int, int]) -> None:
    basis = top_down.spatial_basis(*sides).flatten(1)
    torch.testing.assert_close(basis.norm(dim=0), torch.full((sides[0] * sides[1],), 4.0))
    assert basis.abs().amax(1).min() > 0.1  # no channel is zero everywhere
    if sides == (27, 20):
        assert torch.linalg.matrix_rank(basis.double()) == 64
    distances = torch.cdist(basis.T, basis.T) + 9 * torch.eye(len(basis.T))
    assert distances.min() > 0.5


def test_queries_learn_through_time() -> None:
    """A later output depends on them, and through them on frames before it."""
    net, obs = make(), observations(3, 1)
    first = beginnings(3, 1, (0, 0))
    features, _, _ = net(obs, net.initial(1), first)
    weight = net.query[0].weight
    (gradient,) = torch.autograd.grad(features[0].sum(), weight, retain_graph=True)
    assert not gradient.any()  # the memory is zero at the start, so only biases count
    (gradient,) = torch.autograd.grad(features[1].sum(), weight, retain_graph=True)
    assert gradient.any()
    state = {key: value.requires_grad_() for key, value in net.initial(1).items()}
    features, _, _ = net(obs, state, torch.zeros_like(first))
    parts = torch.autograd.grad(features[2].sum(), list(state.values()), retain_graph=True)
    assert all(part.any() for part in parts)
    features, _, _ = net(obs, state, beginnings(3, 1, (1, 0)))
    parts = torch.autograd.grad(features[2].sum(), list(state.values()), allow_unused=True)
    assert not any(part is not None and part.any() for part in parts)


def test_the_memory_learns_through_its_queries() -> None:
    """Without the LSTM's own weights on it, the last output has an effect by the queries alone."""
    net, obs = make(), observations(1, 2)
    with torch.no_grad():
        net.memory.weight_hh.zero_()
    state = net.initial(2) | {"memory": torch.randn(2, 256, requires_grad=True)}
    features, _, _ = net(obs, state, torch.zeros(1, 2, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(features.sum(), state["memory"])
    assert gradient.any(1).all()


@EVERY
def test_an_unroll_is_its_steps_and_an_episode_begins_with_no_memory(queries: Any) -> None:
    net, obs = make(queries), observations(5, 3)
    first = beginnings(5, 3, (0, 0), (2, 1), (4, 2))
    state: State = {key: torch.randn_like(value) for key, value in net.initial(3).items()}
    with torch.no_grad():
        together, last, extras = net(obs, state, first)
        steps, memory = [], state
        for t in range(5):
            one = {key: value[t] for key, value in obs.items()}
            alone, memory, extra = net.step(one, memory, first[t])
            torch.testing.assert_close(extra["attention"], extras["attention"][t])
            steps.append(alone)
        torch.testing.assert_close(torch.stack(steps), together)
        for key, value in last.items():
            torch.testing.assert_close(memory[key], value, atol=1e-5, rtol=1e-4)
        rest = {key: value[2:, 1:2] for key, value in obs.items()}
        fresh, _, _ = net(
            rest, net.initial(1), torch.zeros(3, 1, dtype=torch.bool) | first[2:, 1:2]
        )
    torch.testing.assert_close(fresh[:, 0], together[2:, 1])


def test_what_was_done_before_an_episode_is_not_read() -> None:
    obs, first = observations(2, 2), beginnings(2, 2, (1, 0))
    last = last_step(obs, first, ACTIONS)
    assert not last[1, 0].any() and last[1, 1].any()
    assert last.abs().max() <= 1 and last.shape == (2, 2, ACTIONS + 1)


@EVERY
def test_fixed_queries_and_key_norms_do_not_depend_on_the_memory(queries: Any) -> None:
    net, obs = make(queries), observations(1, 2)
    first, state = torch.zeros(1, 2, dtype=torch.bool), net.initial(2)
    other = state | {"memory": torch.randn(2, 256)}
    one, two = (net(obs, each, first)[2]["attention"] for each in (state, other))
    assert one.shape == (1, 2, 1 if queries == "key_norm" else 4, 5, 6)
    torch.testing.assert_close(one.sum((-1, -2)), torch.ones(one.shape[:3]))
    assert torch.allclose(one, two) is (queries != "top_down")


def test_the_logits_of_key_norms_are_norms_of_whole_keys() -> None:
    net, keys = make("key_norm"), torch.randn(2, 8, 30)
    whole = torch.cat([keys, net.basis.expand(2, -1, -1)], dim=1)
    expected = whole.norm(dim=1).softmax(-1)[:, None]
    torch.testing.assert_close(net.attend(keys, keys), expected)


def test_weights_begin_as_sonnets() -> None:
    module = nn.Sequential(nn.Linear(400, 300), ConvLSTM(6, 5), nn.LSTMCell(40, 30))
    torch.manual_seed(0)
    module.apply(initialise)
    linear, conv, lstm = tuple[Any, ...](module)
    deviation = 0.88 / math.sqrt(400)  # of a normal distribution that is cut at 2 of its own
    assert linear.weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert linear.weight.abs().max() <= 2 / math.sqrt(400)
    assert conv.gates.bias.tolist() == [0.0] * 5 + [1.0] * 5 + [0.0] * 10
    assert (lstm.bias_ih + lstm.bias_hh).tolist() == [0.0] * 30 + [1.0] * 30 + [0.0] * 60
    assert lstm.weight_ih.std().item() == pytest.approx(0.88 / math.sqrt(70), rel=0.05)


@pytest.mark.parametrize("sides", [(210, 160), (105, 80), (214, 160), (230, 160), (40, 48)])
def test_a_cell_lies_around_the_pixels_that_it_sees(sides: tuple[int, int]) -> None:
    """The receptive field of the two convolutions, found by their gradients."""
    net = make(sides=sides)
    image = torch.rand(1, 3, *sides, requires_grad=True)
    x: Tensor = image
    for layer in net.convolutions:
        if isinstance(layer, SameConv2d):
            with torch.no_grad():
                layer.weight.fill_(1.0)
            x = layer(x)
    rows, columns = x.shape[2:]
    assert (rows, columns) == net.cells
    (gradient,) = torch.autograd.grad(x[0, 0, rows // 2, columns // 2], image)
    field = gradient[0].sum(0)
    attention = torch.zeros(1, 4, rows, columns)
    attention[0, :2, rows // 2, columns // 2] = 0.2
    placed = net.on_image(attention, sides)[0]
    assert placed.shape == sides and placed.max() == 1 and int(placed.sum()) == 64
    for axis in (0, 1):
        centres = [part.sum(axis).nonzero().float().mean() for part in (field, placed)]
        assert abs(float(centres[0] - centres[1])) <= 0.5


def test_maps_are_of_all_heads_or_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes.Chain, "size", fakes.LARGE)
    policy = fakes.policy(
        a2c.Config(steps=80), fakes.LargePixels(), agent="a2c", net=Config(heads=2)
    )
    grid = torch.zeros(1, 2, 5, 5)
    grid[0, 0, 1, 1], grid[0, 1, 3, 3] = 1.0, 0.5
    size, extras = (36, 36), {"attention": grid}
    both, one, other = (attention_map(policy, {}, extras, size, head=head) for head in (None, 0, 1))
    assert both is not None and one is not None and other is not None
    torch.testing.assert_close(both, one + 0.5 * other)
    assert one.max() == other.max() == 1 and not (one * other).any()
    with pytest.raises(FoveaError, match=r"head: 2, must be 0 to 1.*top_down"):
        attention_map(policy, {}, extras, size, head=2)


@pytest.mark.parametrize("sides", [(32, 160), (210, 32)])
def test_smaller_screens_are_refused(sides: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"image: \d+x\d+, must be at least 33x33"):
        make(sides=sides)


@pytest.mark.parametrize(("field", "value"), [("queries", "norm"), ("heads", 0)])
def test_impossible_settings_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        Config(**{field: value})


def test_in_bfloat16_only_the_vision_is() -> None:
    net, obs = make(), observations(3, 2)
    first = beginnings(3, 2, (0, 0))
    exact, _, _ = net(obs, net.initial(2), first)
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
        half, state, extras = net(obs, net.initial(2), first)
    assert all(each.dtype == torch.float32 for each in (half, *state.values(), *extras.values()))
    assert (half - exact).norm() / exact.norm() < 0.02


def test_frames_of_another_action_set_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network reads the last action, which the frames' recording must have in common."""
    monkeypatch.setattr(fakes.Chain, "size", fakes.LARGE)
    policy = fakes.policy(a2c.Config(steps=80), fakes.LargePixels(), agent="a2c", net=Config())
    images = torch.randint(0, 256, (3, 36, 36, 3), dtype=torch.uint8).numpy()
    frames = frame_set(images, [0])
    maps = list(watch(policy, frames, 1))
    assert [each.shape for each in maps] == [(36, 36)] * 3 and max(map(np.max, maps)) == 1
    assert not np.array_equal(maps[0], maps[1])
    with pytest.raises(FoveaError, match=r"reads the last of 3 actions.*frames of its own game"):
        next(watch(policy, replace(frames, action=frames.action + 3), 1))


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 1.0])
def test_equations_12_and_13_are_loops_over_cells(threshold: float) -> None:
    weights = torch.randn(2, 4, 30, generator=torch.Generator().manual_seed(1)).mul(2).softmax(-1)
    result = top_down.hard(weights, threshold)
    for batch in range(2):
        for head in range(4):
            row = weights[batch, head].tolist()
            large = [w if w >= threshold * max(row) else 0.0 for w in row]
            assert 0 in large or threshold == 0
            expected = torch.tensor([w / sum(large) for w in large])
            torch.testing.assert_close(result[batch, head], expected)
    assert threshold > 0 or torch.equal(result, weights)


@EVERY
def test_a_threshold_changes_what_the_agent_reads(queries: Any) -> None:
    net, obs = make(queries), observations(3, 2)
    first = beginnings(3, 2, (0, 0), (0, 1))
    soft, _, _ = net(obs, net.initial(2), first)
    net.threshold = 1.0
    features, _, extras = net(obs, net.initial(2), first)
    assert not torch.equal(features, soft)
    cells = extras["attention"].flatten(3).count_nonzero(-1)
    assert cells[1:].eq(1).all()  # in the first step memory and logits may be 0 in all cells
    torch.testing.assert_close(extras["attention"].sum((3, 4)), torch.ones(3, 2, net.heads))
