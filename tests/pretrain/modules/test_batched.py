"""A frame's result has the same bits in any batch, and is the plain network's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pretrain.encoders import attention
from pretrain.modules.attention_autoencoder import AttentionAutoencoder
from pretrain.modules.batched import TOGETHER, batched, is_batched


def network(shape: tuple[int, int, int]) -> nn.Sequential:
    model = AttentionAutoencoder(shape)
    model.initialise(0)
    return model.mask.requires_grad_(False)


def images(count: int, shape: tuple[int, int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, *shape, generator=generator)


@pytest.mark.parametrize("shape", [(1, 84, 84), (3, 52, 36), (1, 60, 61)])
def test_a_frames_result_does_not_depend_on_its_batch(shape: tuple[int, int, int]) -> None:
    net, x = network(shape), images(40, shape)
    together = batched(net, x)
    for size in (1, 2, 3, 15, 16, 17):
        assert torch.equal(
            torch.cat([batched(net, part) for part in torch.split(x, size)]), together
        )
    assert torch.equal(batched(net, x.flip(0)).flip(0), together)
    torch.testing.assert_close(together, net(x), atol=1e-6, rtol=1e-5)
    assert together.std() > 0


def test_the_encoders_mask_does_not_depend_on_the_batch() -> None:
    shape = 1, 84, 84
    encoder = attention.Pretraining(attention.Config(), shape).encoder()
    image = (images(2 * TOGETHER + 3, shape) * 255).byte()
    assert is_batched(image)
    alone = torch.cat([encoder.attention(one) for one in torch.split(image, 1)])
    assert torch.equal(encoder.attention(image), alone)
    assert not encoder.attention(image).requires_grad
