"""Layers that agents share: the factorised noisy layer, the dueling head, and gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NoisyLinear(nn.Module):
    """A linear layer whose weights have learned noise (Fortunato et al. 2018, section 3).

    The noise is factorised: in training mode y = (μ + σ∘ε_out ε_inᵀ) x + (b + σ_b∘ε_out), in
    evaluation mode it is off. Only the two noise vectors are stored, not their outer product.
    Only `resample_noise` changes them.
    """

    noise_in: Tensor
    noise_out: Tensor

    def __init__(self, inputs: int, outputs: int, sigma: float) -> None:
        """μ ~ U(±1/√inputs), σ = `sigma`/√inputs everywhere, as in the paper."""
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), sigma * bound))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), sigma * bound))
        self.register_buffer("noise_in", torch.zeros(inputs))
        self.register_buffer("noise_out", torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        if not self.training:
            return F.linear(x, self.weight, self.bias)
        weight = torch.addcmul(
            self.weight, self.weight_sigma, torch.outer(self.noise_out, self.noise_in)
        )
        return F.linear(x, weight, torch.addcmul(self.bias, self.bias_sigma, self.noise_out))


class DuelingHead(nn.Module):
    """Noisy dueling streams over value atoms (Wang et al. 2016, eq. 9; Rainbow, section 4)."""

    def __init__(self, inputs: int, hidden: int, actions: int, atoms: int, sigma: float) -> None:
        """Two streams inputs→hidden→atoms and inputs→hidden→actions·atoms."""
        super().__init__()
        self.atoms = atoms
        self.value_hidden = NoisyLinear(inputs, hidden, sigma)
        self.value = NoisyLinear(hidden, atoms, sigma)
        self.advantage_hidden = NoisyLinear(inputs, hidden, sigma)
        self.advantage = NoisyLinear(hidden, actions * atoms, sigma)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, inputs) -> logits (B, actions, atoms)."""
        value = self.value(F.relu(self.value_hidden(features)))
        advantage = self.advantage(F.relu(self.advantage_hidden(features)))
        advantage = advantage.view(features.shape[0], -1, self.atoms)
        logits: Tensor = value[:, None] + advantage - advantage.mean(1, keepdim=True)
        return logits


def resample_noise(module: nn.Module, generator: torch.Generator) -> None:
    """Sample new noise in every noisy layer of `module`, the same for all rows of later batches.

    It is one sample, split in the layers' fixed order.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, NoisyLinear)]
    noises = [noise for layer in layers for noise in (layer.noise_in, layer.noise_out)]
    sizes = [len(noise) for noise in noises]
    normal = torch.randn(sum(sizes), generator=generator, device=generator.device)
    values = normal.sign() * normal.abs().sqrt()
    for noise, part in zip(noises, values.split_with_sizes(sizes), strict=True):
        noise.copy_(part)


L = TypeVar("L", nn.Linear, nn.Conv2d)
RELU_GAIN = 2**0.5  # of weights before a ReLU, which preserves the variance


def orthogonal_(layer: L, gain: float) -> L:
    """The layer itself, with orthogonal weights and zero biases."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """`x` in the forward pass; in the backward pass its gradient is multiplied by `scale`."""
    return x * scale + x.detach() * (1 - scale)


def set_gradients(loss: Tensor, parameters: Sequence[Tensor]) -> None:
    """Set every parameter's `grad` for a step of the fused Adam.

    Gradients are made contiguous, as the parameters are. On a CPU the fused Adam of torch 2.11
    ignores strides, so a convolution's gradient would be applied to the wrong weights. (`backward`
    makes them contiguous by itself.)
    """
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient.contiguous()
