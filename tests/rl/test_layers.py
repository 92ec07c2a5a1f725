"""Noisy layers and the dueling head against their formulas."""

from __future__ import annotations

import pytest
import torch

from rl.layers import DuelingHead, NoisyLinear, resample_noise, scale_gradient


def noisy(seed: int = 0) -> NoisyLinear:
    torch.manual_seed(seed)
    layer = NoisyLinear(6, 4, 0.5)
    resample_noise(layer, torch.Generator().manual_seed(seed))
    return layer


def test_noise_is_the_outer_product_of_two_vectors() -> None:
    layer, x = noisy(), torch.randn(3, 6)
    noise = torch.outer(layer.noise_out, layer.noise_in)
    want = x @ (layer.weight + layer.weight_sigma * noise).T
    want = want + layer.bias + layer.bias_sigma * layer.noise_out
    torch.testing.assert_close(layer(x), want)


def test_noise_vectors_are_signed_roots_of_normals() -> None:
    layer = NoisyLinear(20_000, 1, 0.5)
    resample_noise(layer, torch.Generator().manual_seed(0))
    normal = layer.noise_in.sign() * layer.noise_in**2
    assert normal.mean().item() == pytest.approx(0, abs=0.03)
    assert normal.std().item() == pytest.approx(1, abs=0.03)
    assert (normal.abs() < 1).float().mean().item() == pytest.approx(0.683, abs=0.02)


def test_initial_values_are_the_papers() -> None:
    layer = NoisyLinear(16, 300, 0.5)
    assert layer.weight.abs().max().item() <= 0.25
    assert layer.weight.abs().max().item() > 0.24
    assert torch.equal(layer.weight_sigma, torch.full((300, 16), 0.125))
    assert torch.equal(layer.bias_sigma, torch.full((300,), 0.125))


def test_sigma_gets_the_gradient_of_the_formula() -> None:
    layer, x = noisy(), torch.randn(3, 6)
    weight, bias = torch.autograd.grad(layer(x).sum(), [layer.weight_sigma, layer.bias_sigma])
    want = torch.outer(layer.noise_out, layer.noise_in * x.sum(0))
    torch.testing.assert_close(weight, want)
    torch.testing.assert_close(bias, 3 * layer.noise_out)


def test_noise_is_off_in_evaluation_and_constant_in_training() -> None:
    layer, x = noisy(), torch.randn(3, 6)
    first = layer(x)
    assert torch.equal(first, layer(x))
    resample_noise(layer, torch.Generator().manual_seed(1))
    assert not torch.equal(first, layer(x))
    layer.eval()
    torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias)


def test_every_noisy_layer_samples_its_own_noise_reproducibly() -> None:
    head = DuelingHead(5, 8, 3, 7, 0.5)
    resample_noise(head, torch.Generator().manual_seed(0))
    before = head.value_hidden.noise_in.clone()
    assert not torch.equal(before, head.advantage_hidden.noise_in)
    resample_noise(head, torch.Generator().manual_seed(0))
    assert torch.equal(before, head.value_hidden.noise_in)


def test_the_head_is_value_plus_centred_advantage() -> None:
    torch.manual_seed(0)
    head = DuelingHead(5, 8, 3, 7, 0.5).eval()
    x = torch.randn(4, 5)
    logits = head(x)
    assert logits.shape == (4, 3, 7)
    torch.testing.assert_close(logits.mean(1), head.value(head.value_hidden(x).relu()))


def test_gradient_scale_leaves_the_value_alone() -> None:
    x = torch.randn(5, requires_grad=True)
    y = scale_gradient(x, 0.5)
    torch.testing.assert_close(y, x)
    (gradient,) = torch.autograd.grad((3 * y).sum(), [x])
    torch.testing.assert_close(gradient, torch.full((5,), 1.5))
