"""K-FAC against the dense Fisher matrix, loops over samples and positions, and curvlinops."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl import agents
from rl.agents import acktr
from rl.kfac import KFAC, joint_matrix
from rl.nets import masked_cnn

CURVLINOPS = Path(__file__).with_name("curvlinops_factors.json")


def tiny() -> nn.Sequential:
    """A convolution with 4 positions and a linear layer, in 64 bits."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 2, 3, stride=2, padding=1)
    return nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).double()


def samples(count: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(count, 1, 4, 4, dtype=torch.float64), torch.randint(3, (count,))


def optimizer(net: nn.Module, damping: float = 0.01, kl_clip: float = 1e9) -> KFAC:
    return KFAC(net, learning_rate=0.25, momentum=0.9, decay=0.9, damping=damping,
                kl_clip=kl_clip, invert_every=2)  # fmt: skip


def observe(kfac: KFAC, net: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    with kfac.capture():
        output: Tensor = net(image)
    kfac.observe(F.cross_entropy(output, label), len(label))
    return output


def score(net: nn.Module, layer: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    """∂(-log p)/∂(weight, bias) of one sample, in the layout of `joint_matrix`, flattened."""
    loss = F.cross_entropy(net(image[None]), label[None])
    weight, bias = torch.autograd.grad(loss, list(layer.parameters()))
    return torch.cat([weight.flatten(1), bias[:, None]], dim=1).flatten()


def test_for_one_sample_a_linear_layers_block_is_the_dense_fisher() -> None:
    net, (image, label) = tiny(), samples(1)
    kfac = optimizer(net)
    observe(kfac, net, image, label)
    a, g = kfac.factors["3"]
    dense = score(net, net[3], image[0], label[0])
    torch.testing.assert_close(torch.kron(g, a), torch.outer(dense, dense))


def test_for_one_position_and_equal_inputs_a_block_is_the_dense_fisher() -> None:
    """If the input is constant, A ⊗ G is exact over samples too."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 4), nn.Flatten(), nn.Tanh(), nn.Linear(2, 3)).double()
    image = torch.randn(1, 1, 4, 4, dtype=torch.float64).expand(6, -1, -1, -1)
    label = torch.tensor([0, 1, 2, 2, 1, 1])
    kfac = optimizer(net)
    observe(kfac, net, image, label)
    for name in ("0", "3"):
        rows = [score(net, net[int(name)], *sample) for sample in zip(image, label, strict=True)]
        dense = torch.stack([torch.outer(row, row) for row in rows]).mean(0)
        a, g = kfac.factors[name]
        torch.testing.assert_close(torch.kron(g, a), dense)


def test_factors_are_the_means_over_samples_and_positions() -> None:
    net, (image, label) = tiny(), samples(5)
    kfac = optimizer(net)
    observe(kfac, net, image, label)
    padded, a, g = F.pad(image, (1, 1, 1, 1)), torch.zeros(10, 10), torch.zeros(2, 2)
    hidden = net[0](image)
    loss = F.cross_entropy(net[1:](hidden), label, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, hidden)
    for n in range(5):
        for row in range(2):
            for column in range(2):
                patch = padded[n, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
                x = torch.cat([patch.flatten(), torch.ones(1)])
                a = a + torch.outer(x, x) / 5
                out = gradient[n, :, row, column]
                g = g + torch.outer(out, out) / 20
    torch.testing.assert_close(kfac.factors["0"], (a, g))


def test_factors_are_curvlinops() -> None:
    stored, net = json.loads(CURVLINOPS.read_text()), tiny()
    with torch.no_grad():
        for parameter, values in zip(net.parameters(), stored["parameters"], strict=True):
            parameter.copy_(torch.tensor(values).view(parameter.shape))
    kfac, image = optimizer(net), torch.tensor(stored["image"], dtype=torch.float64)
    observe(kfac, net, image.view(5, 1, 4, 4), torch.tensor(stored["label"]))
    for name, layer in stored["layers"].items():
        theirs = torch.kron(*(torch.tensor(layer[k], dtype=torch.float64) for k in ("g", "a")))
        a, g = kfac.factors[name]
        torch.testing.assert_close(torch.kron(g, a), theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kl_clip", [1e9, 1e-3])
def test_a_step_is_the_dense_solution_scaled_to_the_trust_region(kl_clip: float) -> None:
    net, (image, label) = tiny(), samples(5)
    kfac = optimizer(net, damping=0.1, kl_clip=kl_clip)
    output = observe(kfac, net, image, label)
    torch.autograd.backward(output.square().sum())
    before = {name: joint_matrix(layer, lambda p: p.detach().clone()) for name, layer in
              kfac.layers.items()}  # fmt: skip
    natural, product = {}, 0.0
    for name, layer in kfac.layers.items():
        a, g = kfac.factors[name]
        gradient = joint_matrix(layer, lambda p: p.grad).flatten()
        dense = torch.kron(g, a) + 0.1 * torch.eye(len(gradient))
        natural[name] = torch.linalg.solve(dense, gradient)
        product += float(natural[name] @ gradient)
    scale = min(1.0, (kl_clip / (0.25**2 * product)) ** 0.5)
    assert (scale < 1) == (kl_clip < 1)
    kfac.step()
    for name, layer in kfac.layers.items():
        moved = joint_matrix(layer, lambda p: p.detach()) - before[name]
        torch.testing.assert_close(moved.flatten(), -0.25 * 0.1 * scale * natural[name])


def test_factors_are_running_averages_and_are_inverted_at_every_second_step() -> None:
    net, (image, label) = tiny(), samples(6)
    kfac, alone = optimizer(net), [optimizer(net), optimizer(net)]
    halves = [(image[:3], label[:3]), (image[3:], label[3:])]
    bases = []
    for other, half in zip(alone, halves, strict=True):
        observe(other, net, *half)  # A of the first layer does not depend on the weights
        torch.autograd.backward(observe(kfac, net, *half).sum())
        kfac.step()
        bases.append(kfac.bases["0"])
    first, second = (other.factors["0"][0] for other in alone)
    torch.testing.assert_close(kfac.factors["0"][0], 0.9 * first + 0.1 * second)
    assert bases[1] is bases[0]
    kfac.step()
    assert kfac.bases["0"] is not bases[0]


def test_a_copy_continues_bit_for_bit() -> None:
    first, second, (image, label) = tiny(), tiny(), samples(5)
    ours, theirs = optimizer(first), optimizer(second)
    for step in range(5):
        if step == 3:
            second.load_state_dict(first.state_dict())
            theirs.load_state_dict(deepcopy(ours.state_dict()))
        nets = [(first, ours)] if step < 3 else [(first, ours), (second, theirs)]
        for net, kfac in nets:
            net.zero_grad()
            torch.autograd.backward(observe(kfac, net, image, label).square().mean())
            kfac.step()
    for left, right in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_part_that_is_left_out_takes_its_plain_gradient() -> None:
    net, (image, label) = tiny(), samples(5)
    weight: Any = net[0].weight
    kfac = KFAC(net, learning_rate=0.25, momentum=0.9, decay=0.9, damping=0.1, kl_clip=1e9,
                invert_every=2, plain=[net[0]])  # fmt: skip
    torch.autograd.backward(observe(kfac, net, image, label).square().sum())
    before, plain = weight.detach().clone(), weight.grad.clone()
    assert set(kfac.layers) == set(kfac.factors) == {"3"}
    kfac.step()
    torch.testing.assert_close(weight, before - 0.25 * 0.1 * plain)


def test_acktr_leaves_a_mask_generator_out() -> None:
    example = {"image": torch.zeros(1, 1, 36, 36, dtype=torch.uint8)}
    for mask in ("joint", "top_down"):
        agent: Any = agents.make(
            "acktr", acktr.Config(), example, net_name="masked_cnn",
            net_config=masked_cnn.Config(mask=mask, width=16), actions=3,
        )  # fmt: skip
        names = ("actor", "critic", "convolutions.0", "convolutions.2", "convolutions.4", "project")
        assert len(agent.optimizer.layers) == len(names)
        assert not any(".mask." in name for name in agent.optimizer.layers)
        trained = {
            id(p) for group in agent.optimizer.optimizer.param_groups for p in group["params"]
        }
        assert {id(p) for p in agent.policy.parameters()} == trained
