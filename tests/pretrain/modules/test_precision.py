"""Training in bfloat16: the loss and its gradient equal those of float32 up to rounding."""

from __future__ import annotations

import pytest
import torch

from pretrain.encoders import attention, transporter
from pretrain.modules.precision import Precision

GRAY = (1, 84, 84)
Method = attention.Pretraining | transporter.Pretraining


def method(name: str, precision: Precision) -> Method:
    if name == "attention":
        return attention.Pretraining(attention.Config(precision=precision), GRAY)
    return transporter.Pretraining(transporter.Config(precision=precision), GRAY)


def loss_and_gradient(
    training: Method,
) -> tuple[float, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randint(256, (2, 4, 84, 84, 1), generator=generator, dtype=torch.uint8)
    loss = training.loss({"source": pairs[0], "image": pairs[1]})
    assert loss.dtype == torch.float32
    torch.autograd.backward(loss)
    gradients = [p.grad.flatten() for p in training.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat(gradients)


@pytest.mark.parametrize("name", ["attention", "transporter"])
def test_bfloat16_is_float32_up_to_rounding(name: str) -> None:
    loss, gradient = loss_and_gradient(method(name, "float32"))
    half_loss, half_gradient = loss_and_gradient(method(name, "auto"))
    assert half_loss == pytest.approx(loss, rel=0.01)
    assert torch.cosine_similarity(half_gradient, gradient, dim=0) > 0.98
