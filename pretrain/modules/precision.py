"""bfloat16 products for training, where the processor or GPU has them.

Weights, gradients, optimizers and all sums stay in float32 (autocast). Rollouts of on-policy agents
are in the precision of their updates. Evaluation and labelling are in float32 on any machine.

On processors with AMX, torch 2.11 returns wrong bfloat16 results for some convolutions with strides
or large kernels (pytorch issue 169688): the relative error is 1, and nothing is raised. Each shape
is therefore compared with float32 once, and stays in float32 if they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pretrain.modules.linear import has_bfloat16

Precision = Literal["auto", "float32"]

CONVOLUTIONS = (F.conv2d, F.conv_transpose2d)
TOLERANCE = 0.05  # of the norm; right results differ by 0.003


@contextmanager
def autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """A context of bfloat16 products, if `precision` is "auto" and the device has them."""
    on_cpu = device.type == "cpu"
    has = has_bfloat16() if on_cpu else torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "float32" or not has:
        yield
        return
    with torch.autocast(device.type, torch.bfloat16):
        if on_cpu:
            with Compared():
                yield
        else:
            yield


class Compared(TorchFunctionMode):
    """Convolutions in float32 where the processor's bfloat16 ones are wrong."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `function`."""
        kwargs = kwargs or {}
        if function in CONVOLUTIONS and torch.is_autocast_enabled("cpu"):
            (image, weight), settings = args[:2], args[3:]  # without the bias
            named = {name: value for name, value in kwargs.items() if name != "bias"}
            if not is_right(function, image.shape, weight.shape, *settings, **named):
                with torch.autocast("cpu", enabled=False):
                    return function(image.float(), *args[1:], **kwargs)
        return function(*args, **kwargs)


@cache
def is_right(
    convolution: Callable[..., Tensor],
    image: torch.Size,
    weight: torch.Size,
    *settings: Any,
    **named: Any,
) -> bool:
    """Whether a bfloat16 convolution and its gradients are float32's up to rounding.

    `settings` are those after the bias, `named` those given by keyword: stride, padding, …
    """
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(min(image[0], 2), *image[1:], generator=generator)
    kernel = torch.randn(weight, generator=generator)

    def results(kind: torch.dtype) -> list[Tensor]:
        pair = [each.to(kind).requires_grad_() for each in (inputs, kernel)]
        output = convolution(*pair, None, *settings, **named)
        gradients = torch.autograd.grad(output.float().square().sum(), pair)
        return [each.float() for each in (output, *gradients)]

    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        pairs = zip(results(torch.bfloat16), results(torch.float32), strict=True)
        return all(bool((a - b).norm() <= TOLERANCE * b.norm()) for a, b in pairs)
