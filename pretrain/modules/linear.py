"""Linear layers by oneDNN, on CPUs where torch's own choice is half as fast.

torch computes float32 products with Intel's MKL, which uses only AVX2 on other makers' processors.
oneDNN is part of torch too, and uses AVX-512 where it exists: on a Zen 5, 120 thousand million
multiply-accumulates a second of one core instead of 55. The values are float32 either way and
differ in rounding. Without AVX-512 both are about equally fast, so torch's choice is kept. A GPU,
half precision and exported programs are never affected.

Training multiplies in bfloat16 where such a processor has the instructions (AVX512_BF16), as on a
GPU: its products are up to twice as fast again, SPIRL's autoencoder as a whole 1.14 times. Inputs
and outputs of a product are rounded; sums, and everything between products, are float32. SPIRL's
autoencoder then differs less from float32's than another seed's does: `python -m bench.half`,
figures in bench/measured/half.json. Intel's processors were not available for measurements, so
torch's choice is kept there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def fast_linear(
    device: torch.device, *, half: bool = False
) -> contextlib.AbstractContextManager[object]:
    """A context in which `F.linear`, and so every `nn.Linear`, is `linear` where that is faster.

    Gradients of its results are oneDNN's too, also if they are computed later. With `half`,
    products with gradients are in bfloat16 where the processor has it. For a GPU's `device` the
    context does nothing, so that it costs nothing.
    """
    if device.type != "cpu" or not is_faster():
        return contextlib.nullcontext()
    return _Fast(torch.bfloat16 if half and has_bfloat16() else torch.float32)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, kind: torch.dtype = torch.float32
) -> Tensor:
    """`F.linear` by oneDNN: x (..., I), weight (O, I), bias (O,), float32 on a CPU -> (..., O).

    `kind` is the type of products that have gradients; the result is float32.
    """
    parts = [part for part in (x, weight, bias) if part is not None]
    if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
        out: Tensor = _Linear.apply(  # type: ignore[no-untyped-call]  # is torch's
            x, weight, bias, kind
        )
        return out
    return _product(x, weight, bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W' + b; `weight` may be a view of any strides. The operator that torch.compile uses."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, kind: torch.dtype
    ) -> Tensor:
        x, weight = x.to(kind), weight.to(kind)
        ctx.save_for_backward(x, weight)
        return _product(x, weight, None if bias is None else bias.to(kind)).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        whole = gradients[0].reshape(-1, weight.shape[0])
        gradient = whole.to(x.dtype)
        return (
            _product(gradient, weight.t()).view(x.shape).float() if of_x else None,
            _of_weight(gradient, x.reshape(-1, weight.shape[1])).float() if of_weight else None,
            whole.sum(0) if of_bias else None,
            None,
        )


def _of_weight(gradient: Tensor, x: Tensor) -> Tensor:
    """gradient' x: (T, O), (T, I) -> (O, I). Only the narrower of the two is copied transposed."""
    if gradient.shape[1] <= x.shape[1]:
        return _product(gradient.t().contiguous(), x.t())
    return _product(x.t().contiguous(), gradient.t()).t().contiguous()


class _Fast(TorchFunctionMode):
    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self._kind = kind

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.linear and not kwargs and _is_plain(args[0]):
            x, weight, *bias = args
            return linear(x, weight, bias[0] if bias else None, self._kind)
        return func(*args, **(kwargs or {}))


def _is_plain(x: Tensor) -> bool:
    """Whether `linear` can take it; autocast would have it in half precision."""
    on_cpu = x.device.type == "cpu" and x.dtype == torch.float32
    return on_cpu and x.numel() > 0 and not torch.is_autocast_enabled("cpu")


@cache
def is_faster() -> bool:
    """Whether oneDNN is faster: with AVX-512 on a processor that is not Intel's."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    with contextlib.suppress(OSError):  # only Linux has the file
        return "GenuineIntel" not in Path("/proc/cpuinfo").read_text()
    return False


def has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16 products with float32 sums."""
    support: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # ONEDNN_MAX_CPU_ISA may forbid it
    return support and bool(torch.cpu.get_capabilities().get("avx512_bf16"))
