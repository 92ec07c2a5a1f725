"""Training in bfloat16: the loss and its gradient equal those of float32 up to rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.encoders import attention, transporter
from pretrain.modules import precision as module
from pretrain.modules.precision import Compared, Precision, is_right

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


def test_the_convolutions_of_a_net_are_compared_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong shape is in float32, exactly; the others are in bfloat16."""
    wrong = torch.Size((8, 3, 4, 4))

    def right(_: Any, image: torch.Size, weight: torch.Size, *settings: Any, **named: Any) -> bool:
        return weight != wrong or 2 not in (*settings, *named.values())

    monkeypatch.setattr(module, "is_right", right)
    image, kernel = torch.randn(2, 3, 9, 9), torch.randn(wrong)
    with torch.autocast("cpu", torch.bfloat16), Compared():
        assert F.conv2d(image, kernel, stride=2).dtype == torch.float32
        first = F.conv2d(image, kernel, None, 2)
        second = F.conv2d(first, torch.randn(1, 8, 1, 1))
    assert first.dtype == torch.float32
    assert torch.equal(first, F.conv2d(image, kernel, None, 2))
    assert second.dtype == torch.bfloat16


class Negated(torch.autograd.Function):
    """The identity, with a wrong gradient in bfloat16."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0] if gradients[0].dtype == torch.bfloat16 else gradients[0]


def wrong_output(x: Tensor, kernel: Tensor, bias: None, stride: int = 1) -> Tensor:
    return F.conv2d(x, kernel, bias, stride) + (x.dtype == torch.bfloat16)


def wrong_gradient(x: Tensor, kernel: Tensor, bias: None, stride: int = 1) -> Tensor:
    same: Tensor = Negated.apply(x)  # type: ignore[no-untyped-call]  # is torch's
    return F.conv2d(same, kernel, bias, stride)


def test_a_wrong_output_or_gradient_is_noticed() -> None:
    image, kernel = torch.Size((16, 4, 84, 84)), torch.Size((32, 4, 3, 3))
    assert is_right(F.conv2d, image, kernel, 2)
    assert not is_right(wrong_output, image, kernel, 2)
    assert not is_right(wrong_gradient, image, kernel, 2)
    assert not is_right(wrong_output, image, kernel, stride=2)


def test_comparing_leaves_the_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    is_right(F.conv2d, torch.Size((1, 2, 7, 7)), torch.Size((1, 2, 3, 3)))
    assert torch.equal(torch.get_rng_state(), state)
