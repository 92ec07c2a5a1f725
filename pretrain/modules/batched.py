"""A convolutional network on a batch on a CPU, with the same bits for a frame in any batch.

In torch a frame's result depends on its batch in two places. Convolutions with small kernels are
not oneDNN's in batches below 16, and the sigmoid rounds the last elements of a tensor differently
if they do not fill a vector. Here all convolutions are oneDNN's, which do not depend on the batch,
and the sigmoid is computed on whole vectors. 16 frames together take a third of their time apart.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TOGETHER = 16  # frames, whose maps fit in the cache
VECTOR = 64  # elements, a multiple of those that a CPU processes together
SMALL = 3  # kernels, for which torch's choice of a convolution depends on the batch


def is_batched(image: Tensor) -> bool:
    """Whether `batched` applies: on a CPU with oneDNN, except in exported programs."""
    onednn: Any = torch.backends.mkldnn  # has no types
    on_cpu = image.device.type == "cpu" and bool(onednn.is_available())
    return on_cpu and not torch.compiler.is_exporting()


@torch.no_grad()
def batched(net: nn.Sequential, x: Tensor) -> Tensor:
    """`net(x)` for float32 (B, C, H, W), layer by layer, without gradients."""
    for layer in net:
        if isinstance(layer, nn.Conv2d) and min(layer.kernel_size) <= SMALL:
            x = _convolution(layer, x)
        elif isinstance(layer, nn.Sigmoid):
            x = _sigmoid(x)
        else:
            x = layer(x)
    return x


def _convolution(layer: nn.Conv2d, x: Tensor) -> Tensor:
    assert not isinstance(layer.padding, str), layer
    convolve = torch.ops.mkldnn._convolution_pointwise
    out: Tensor = convolve(
        x, layer.weight, layer.bias, layer.padding, layer.stride, layer.dilation, layer.groups,
        "none", [], "",
    )  # fmt: skip
    return out


def _sigmoid(x: Tensor) -> Tensor:
    numbers = x.flatten(1)
    whole = F.pad(numbers, (0, -numbers.shape[1] % VECTOR))
    return whole.sigmoid()[:, : numbers.shape[1]].reshape(x.shape)
