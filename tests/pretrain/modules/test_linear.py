"""Linear layers by oneDNN against torch's own, values and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.modules import linear

CPU = torch.device("cpu")
# Elsewhere oneDNN refuses bfloat16.
KINDS = [torch.float32, *([torch.bfloat16] if linear.has_bfloat16() else [])]


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """As on a processor where oneDNN is faster; returns the shapes of its calls."""
    shapes: list[tuple[int, ...]] = []
    real = linear.linear

    def record(x: Tensor, weight: Tensor, bias: Tensor | None, kind: torch.dtype) -> Tensor:
        shapes.append(tuple(x.shape))
        return real(x, weight, bias, kind)

    monkeypatch.setattr(linear, "is_faster", lambda: True)
    monkeypatch.setattr(linear, "linear", record)
    yield shapes


@pytest.mark.parametrize("shape", [(5, 12), (2, 7, 12), (12,), (1, 1, 12)])
@pytest.mark.parametrize("out", [3, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_torchs(shape: tuple[int, ...], out: int, bias: bool) -> None:
    x = torch.randn(shape, requires_grad=True)
    layer = nn.Linear(12, out, bias=bias)
    ways = []
    for product in (linear.linear, F.linear):
        y = product(x, layer.weight, layer.bias)
        parts = [x, *layer.parameters()]
        ways.append([y.detach(), *torch.autograd.grad(y.square().sum(), parts)])
    for ours, expected in zip(*ways, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-5)
        assert ours.is_contiguous()  # fused optimizers on a CPU ignore strides


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("inner", "out"), [(96, 20), (20, 96)])
@pytest.mark.parametrize("bias", [True, False])
def test_inputs_and_outputs_are_rounded(
    kind: torch.dtype, inner: int, out: int, bias: bool
) -> None:
    x, layer = torch.randn(3, 5, inner, requires_grad=True), nn.Linear(inner, out, bias=bias)
    parts, gradient = [x, *layer.parameters()], torch.randn(3, 5, out)
    rounded = [part.detach().to(kind).float().requires_grad_() for part in parts]
    y = linear.linear(x, layer.weight, layer.bias, kind)
    expected = F.linear(rounded[0], rounded[1], rounded[2] if bias else None)
    gradients = [y, *torch.autograd.grad(y, parts, gradient)]
    correct = [expected, *torch.autograd.grad(expected, rounded, gradient.to(kind).float())]
    if bias:  # its gradient is no product
        torch.testing.assert_close(gradients.pop(), gradient.sum((0, 1)))
        correct.pop()
    for ours, theirs in zip(gradients, correct, strict=True):
        assert ours.dtype == torch.float32 and ours.is_contiguous()
        assert torch.equal(ours, ours.to(kind).float())
        torch.testing.assert_close(ours, theirs.to(kind).float(), atol=1e-5, rtol=2**-7)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("can", [True, False])
def test_only_training_on_a_capable_processor_is_in_bfloat16(
    half: bool, can: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[torch.dtype] = []
    monkeypatch.setattr(linear, "is_faster", lambda: True)
    monkeypatch.setattr(linear, "has_bfloat16", lambda: can)
    monkeypatch.setattr(linear, "linear", lambda x, weight, bias, kind: kinds.append(kind))
    with linear.fast_linear(CPU, half=half):
        F.linear(torch.randn(2, 3), torch.randn(4, 3), None)
    assert kinds == [torch.bfloat16 if half and can else torch.float32]


def test_without_gradients_it_is_float32() -> None:
    x, weight = torch.randn(4, 6), torch.randn(3, 6)
    output = linear.linear(x, weight, None, torch.bfloat16)
    torch.testing.assert_close(output, F.linear(x, weight))


def test_strided_inputs_and_frozen_parts() -> None:
    x = torch.randn(6, 5, 8).transpose(0, 1)
    layer = nn.Linear(8, 4)
    layer.weight.requires_grad_(False)
    y = linear.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(y, layer(x))
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert layer.weight.grad is None
    torch.testing.assert_close(layer.bias.grad, torch.full((4,), 30.0))


def test_every_linear_layer_is_replaced_while_entered(faster: list[tuple[int, ...]]) -> None:
    net, x = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 2)), torch.randn(4, 6)
    expected = net(x)
    assert faster == []
    with linear.fast_linear(CPU):
        torch.testing.assert_close(net(x), expected)
        assert faster == [(4, 6), (4, 9)]
        assert net.double()(x.double()).dtype == torch.float64  # stays torch's
        net.float()(torch.empty(0, 6))
        with torch.autocast("cpu", torch.bfloat16):
            assert net(x).dtype == torch.bfloat16
    assert len(faster) == 2
    net(x)
    assert len(faster) == 2


def test_nothing_is_entered_for_a_gpu(faster: list[tuple[int, ...]]) -> None:
    layer, x = nn.Linear(6, 2), torch.randn(4, 6)
    with linear.fast_linear(torch.device("cuda")):
        layer(x)
    assert faster == []


def test_training_ends_at_the_same_weights(faster: list[tuple[int, ...]]) -> None:
    x, target, ends = torch.randn(32, 8), torch.randn(32, 3), []
    for fast in (True, False):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3))
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
        for _ in range(30):
            if fast:
                with linear.fast_linear(CPU):
                    loss = F.mse_loss(net(x), target)
            else:
                loss = F.mse_loss(net(x), target)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        ends.append(torch.cat([weight.detach().flatten() for weight in net.parameters()]))
    assert len(faster) == 60
    torch.testing.assert_close(*ends, atol=1e-4, rtol=1e-4)


@pytest.fixture
def unknown() -> Iterator[None]:
    """A process that has not yet measured whether oneDNN is faster."""
    linear.is_faster.cache_clear()
    yield
    linear.is_faster.cache_clear()


@pytest.mark.usefixtures("unknown")
@pytest.mark.parametrize(
    ("capability", "maker", "faster"),
    [
        ("AVX512", "AuthenticAMD", True),
        ("AVX512", "GenuineIntel", False),
        ("AVX2", "AuthenticAMD", False),
        ("DEFAULT", "", False),
    ],
)
def test_only_where_it_is_faster(
    capability: str, maker: str, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(Path, "read_text", lambda path: f"vendor_id\t: {maker}\n")
    assert linear.is_faster() is faster


@pytest.mark.usefixtures("unknown")
def test_without_the_library_torchs_own_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(Path, "read_text", missing)
    assert not linear.is_faster()


def test_a_gradient_of_a_gradient_is_refused() -> None:
    x, layer = torch.randn(4, 6, requires_grad=True), nn.Linear(6, 2)
    y = linear.linear(x, layer.weight, layer.bias).square().sum()
    (once,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(once.sum())
