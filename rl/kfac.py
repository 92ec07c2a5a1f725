"""K-FAC: natural gradients by Kronecker factors, for linear and convolutional layers.

Martens and Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature"
(2015); Grosse and Martens, "A Kronecker-factored Approximate Fisher Matrix for Convolution Layers"
(2016). A layer's block of the Fisher matrix is taken for A ⊗ G: with inputs a (a one appended, so
that the bias is a column of the weight) and ∂(-log p)/∂(output) g of N samples at T positions,

    A = 1/N Σ_n Σ_t a aᵀ        G = 1/(N T) Σ_n Σ_t g gᵀ

Damping, clipping and step size are those of ACKTR (Wu et al. 2017, section 3 and released code):
the step is v = (A ⊗ G + λ I)⁻¹ ∇, inverted exactly in the factors' eigenbases and scaled so that
η² v·∇ stays within `kl_clip`; then SGD with momentum μ and rate η (1 - μ). All other parameters
take their plain gradient, those too of a layer whose weights are used without running it, and of
parts that are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Layer = nn.Linear | nn.Conv2d
IMAGES = 32  # whose patches fit in the cache
STRIPS = 4  # of a symmetric product; in each, rows above the diagonal block are left out


class KFAC:
    """The optimizer of a module each of whose layers runs once in a forward pass.

    with optimizer.capture():
        output = module(x)
    optimizer.observe(-log_probability_of_samples_from(output).mean(), len(x))
    loss.backward()
    optimizer.step()
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        learning_rate: float,
        momentum: float,
        decay: float,
        damping: float,
        kl_clip: float,
        invert_every: int,
        plain: Iterable[nn.Module] = (),
    ) -> None:
        """`decay` is that of the factors' running averages; `invert_every` counts steps; parts in
        `plain` take their plain gradient.
        """
        aside = {layer for part in plain for layer in part.modules()}
        self.layers: dict[str, Layer] = {
            name: layer
            for name, layer in module.named_modules()
            if isinstance(layer, Layer) and layer.weight.requires_grad and layer not in aside
        }
        trained = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(
            trained, lr=learning_rate * (1 - momentum), momentum=momentum
        )
        self.learning_rate, self.decay = learning_rate, decay
        self.damping, self.kl_clip, self.invert_every = damping, kl_clip, invert_every
        self.steps = 0
        self.factors: dict[str, tuple[Tensor, Tensor]] = {}  # A (in + 1)², G (out)²
        self.bases: dict[str, tuple[Tensor, Tensor, Tensor]] = {}  # Q_A, Q_G, eigenvalues of A ⊗ G
        self._inputs: dict[str, Tensor] = {}
        self._outputs: dict[str, Tensor] = {}

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Keep the inputs and outputs of the layers that run in here."""
        self._inputs, self._outputs = {}, {}
        hooks = [
            layer.register_forward_hook(self._keeper(name)) for name, layer in self.layers.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _keeper(self, name: str) -> Any:
        def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            assert name not in self._outputs, f"{name} runs twice in one pass"
            self._inputs[name], self._outputs[name] = inputs[0].detach(), output

        return keep

    def observe(self, loss: Tensor, samples: int) -> None:
        """Take the captured pass into the factors.

        `loss` is the mean of -log p over so many samples of the distributions that the pass gave.
        Its graph stays.
        """
        names = list(self._outputs)
        gradients = torch.autograd.grad(loss, list(self._outputs.values()), retain_graph=True)
        for name, gradient in zip(names, gradients, strict=True):
            new_factors = factors(self.layers[name], self._inputs[name], gradient, samples)
            if name in self.factors:
                for average, new in zip(self.factors[name], new_factors, strict=True):
                    average.lerp_(new, 1 - self.decay)
            else:
                self.factors[name] = new_factors
        self._inputs, self._outputs = {}, {}

    @torch.no_grad()
    def step(self) -> None:
        """Turn the parameters' gradients into natural ones, and take a step along them."""
        if self.steps % self.invert_every == 0:
            self._invert()
        self.steps += 1
        product = torch.zeros((), device=next(iter(self.layers.values())).weight.device)
        natural = {}
        layers = {name: self.layers[name] for name in self.factors}
        for name, layer in layers.items():
            gradient = joint_matrix(layer, lambda parameter: parameter.grad)
            natural[name] = self._precondition(name, gradient)
            product += (natural[name] * gradient).sum()
        scale = (self.kl_clip / (self.learning_rate**2 * product)).sqrt().clamp_max(1)
        for name, layer in layers.items():
            step = natural[name] * scale
            if layer.bias is not None:
                layer.bias.grad = step[:, -1].contiguous()
                step = step[:, :-1]
            layer.weight.grad = step.reshape(layer.weight.shape).contiguous()
        self.optimizer.step()

    def _invert(self) -> None:
        for name, (a, g) in self.factors.items():
            (value_a, basis_a), (value_g, basis_g) = torch.linalg.eigh(a), torch.linalg.eigh(g)
            # The factors have no negative eigenvalues, but rounding has.
            values = value_g.clamp_min(0)[:, None] * value_a.clamp_min(0)
            self.bases[name] = basis_a, basis_g, values

    def _precondition(self, name: str, gradient: Tensor) -> Tensor:
        """(A ⊗ G + λ I)⁻¹ of a gradient (out, in + 1)."""
        basis_a, basis_g, values = self.bases[name]
        rotated = basis_g.T @ gradient @ basis_a
        return basis_g @ (rotated / (values + self.damping)) @ basis_a.T

    def state_dict(self) -> dict[str, object]:
        """Everything that the next step depends on."""
        return {
            "steps": self.steps,
            "factors": self.factors,
            "bases": self.bases,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, bit for bit."""
        self.steps = state["steps"]
        self.factors, self.bases = dict(state["factors"]), dict(state["bases"])
        self.optimizer.load_state_dict(state["optimizer"])


def factors(layer: Layer, x: Tensor, gradient: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """A and G of one pass: `x` is its input, `gradient` that of a mean over so many samples.

    Whatever else a layer runs over, positions, time or tokens, counts as positions.
    """
    if isinstance(layer, nn.Conv2d):
        a, gradient = _gram(_patches(layer, x)), gradient.movedim(1, -1)
        order = _order(layer, len(a), x.device)
        a = a[order][:, order]
    else:
        rows = x.flatten(0, -2).to(layer.weight.dtype)
        a = _gram([rows if layer.bias is None else F.pad(rows, (0, 1), value=1.0)])
    gradient = gradient.flatten(0, -2).to(layer.weight.dtype)
    return a / samples, _gram([gradient]) * (samples**2 / len(gradient))


def _patches(layer: nn.Conv2d, x: Tensor) -> Iterator[Tensor]:
    """The patches under a convolution's kernel, IMAGES of (N, C, H, W) at a time: rows (positions,
    kernel row · kernel column · channel), and a one for the bias.

    Every block is written to the same memory. The patches of a whole batch would be hundreds of
    megabytes, and page faults would take longer than the products.
    """
    assert not isinstance(layer.padding, str) and layer.groups == 1, layer
    (pad_y, pad_x), (step_y, step_x) = layer.padding, layer.stride
    (high, wide), (apart_y, apart_x) = layer.kernel_size, layer.dilation
    x = F.pad(x, (pad_x, pad_x, pad_y, pad_y)).contiguous(memory_format=torch.channels_last)
    count, channels, height, width = x.shape
    rows = (height - apart_y * (high - 1) - 1) // step_y + 1
    columns = (width - apart_x * (wide - 1) - 1) // step_x + 1
    n, c, h, w = x.stride()
    patches = x.as_strided(
        (count, rows, columns, high, wide, channels),
        (n, h * step_y, w * step_x, h * apart_y, w * apart_x, c),
    )
    size, at_once = high * wide * channels, min(IMAGES, count)
    kind, bias = layer.weight.dtype, layer.bias is not None
    memory = torch.ones(at_once * rows * columns, size + bias, dtype=kind, device=x.device)
    for part in torch.split(patches, at_once):
        block = memory[: len(part) * rows * columns]
        block[:, :size].view(part.shape).copy_(part)
        yield block


def _order(layer: nn.Conv2d, size: int, device: torch.device) -> Tensor:
    """The columns of `_patches` in the order of the weight: channel, kernel row, kernel column."""
    (high, wide), channels = layer.kernel_size, layer.in_channels
    places = torch.arange(size, device=device)
    inside = places[: high * wide * channels].view(high, wide, channels).permute(2, 0, 1).flatten()
    return torch.cat([inside, places[len(inside) :]])


def _gram(parts: Iterable[Tensor]) -> Tensor:
    """Σ x xᵀ (d, d) over the rows x of all parts (m, d); the lower triangle is computed, and copied
    to the upper.
    """
    total = torch.zeros(())
    for x in parts:
        width = x.shape[1]
        if not total.ndim:
            total = x.new_zeros(width, width)
        step = -(-width // STRIPS)
        for start in range(0, width, step):
            strip = slice(start, start + step)
            total[start:, strip].addmm_(x[:, start:].T, x[:, strip])
    return total.tril() + total.tril(-1).T


def joint_matrix(layer: Layer, of: Callable[[Any], Any]) -> Tensor:
    """`of` weight and bias as one matrix (out, in + 1); the bias is the last column."""
    weight: Tensor = of(layer.weight).flatten(1)
    return weight if layer.bias is None else torch.cat([weight, of(layer.bias)[:, None]], dim=1)
