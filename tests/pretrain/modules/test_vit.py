"""The network: sizes and positions, and passes against plain loops and timm's blocks."""

from __future__ import annotations

import math

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import nn

from datasets.errors import FoveaError
from pretrain.encoders import mae
from pretrain.modules.vit import (
    MaskedViT,
    normalise,
    patchify,
    query_one,
    sincos_positions,
    unpatchify,
)

SHAPE = (3, 96, 96)


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_parameter_counts_are_the_papers() -> None:
    model = MaskedViT(SHAPE, 8)
    assert count(model.embed_patch) == 12_352
    assert count(model.blocks) == 149_952
    assert count(model.embed_patch, model.blocks, model.norm) == 162_432
    assert count(model.embed_latent) == 8_320
    assert count(model.decoder_blocks) == 594_816
    assert count(model.predict) == 24_768
    decoder = (model.embed_latent, model.decoder_blocks, model.decoder_norm, model.predict)
    assert count(*decoder) == 628_160
    assert model.cls.shape == (1, 1, 64) and model.mask_token.shape == (1, 1, 128)
    assert count(model) == 790_784
    assert all(p.requires_grad for p in model.parameters())
    assert sum(t.numel() for t in model.state_dict().values()) == 790_784  # no positions in files
    assert count(mae.Pretraining(mae.Config(), SHAPE).model) == 790_784  # what training uses


def test_patchify_against_a_loop_and_back() -> None:
    image = torch.randint(0, 256, (2, 3, 12, 8), dtype=torch.uint8)
    patches = patchify(image, 4)
    assert patches.shape == (2, 6, 48)
    for n in range(6):
        top, left = n // 2 * 4, n % 2 * 4
        for row in range(4):
            for column in range(4):
                for channel in range(3):
                    where = (row * 4 + column) * 3 + channel
                    expected = image[:, channel, top + row, left + column]
                    assert torch.equal(patches[:, n, where], expected)
    assert torch.equal(unpatchify(patches, 4, (3, 12, 8)), image)
    assert patchify(image[:0], 4).shape == (0, 6, 48), "an empty batch"
    assert unpatchify(patches[:0], 4, (3, 12, 8)).shape == (0, 3, 12, 8)


def test_normalise_uses_the_unbiased_variance() -> None:
    patches = torch.rand(2, 3, 192)
    mean = patches.mean(-1, keepdim=True)
    variance = (patches - mean).square().sum(-1, keepdim=True) / 191
    torch.testing.assert_close(normalise(patches), (patches - mean) / (variance + 1e-6).sqrt())


@pytest.mark.parametrize(("rows", "columns"), [(12, 12), (3, 5)])
def test_positions_against_the_formula(rows: int, columns: int) -> None:
    dim = 64
    table = sincos_positions(dim, rows, columns)
    quarter = dim // 4
    for row, column in ((0, 0), (1, 2), (rows - 1, columns - 1)):
        expected = [
            wave(at * 10000 ** (-i / quarter))
            for at in (column, row)
            for wave in (math.sin, math.cos)
            for i in range(quarter)
        ]
        torch.testing.assert_close(table[row * columns + column], torch.tensor(expected))


def test_cls_has_no_position() -> None:
    model = MaskedViT(SHAPE, 8)
    assert not model.decoder_positions[0].any()
    torch.testing.assert_close(model.decoder_positions[1:], sincos_positions(128, 12, 12))


def test_initialisation() -> None:
    model = MaskedViT(SHAPE, 8)
    model.initialise(3)
    embed = model.embed_patch.weight  # as the convolution of (3 * 8 * 8 -> 64), flattened
    bound = math.sqrt(6 / (192 + 64))
    assert 0.98 * bound < embed.abs().max() <= bound
    assert 0.017 < model.mask_token.std() < 0.023
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif "norm" in name:
            assert bool((parameter == 1).all())
    again, other = MaskedViT(SHAPE, 8), MaskedViT(SHAPE, 8)
    again.initialise(3)
    other.initialise(4)
    weights = [list(m.state_dict().values()) for m in (model, again, other)]
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not torch.equal(weights[0][0], weights[2][0])


def test_one_query_equals_the_whole_block() -> None:
    block = Block(32, 4, qkv_bias=True)
    x, at = torch.randn(5, 7, 32), torch.tensor([0, 6, 3, 3, 1])
    expected = block(x)[torch.arange(5), at]
    torch.testing.assert_close(query_one(block, x, at), expected, atol=1e-6, rtol=1e-5)


def test_masked_tokens_change_nothing() -> None:
    model = MaskedViT(SHAPE, 16)
    model.initialise(0)
    tokens = torch.randn(2, 9, 64)
    mask = torch.arange(9) < torch.tensor([[4], [9]])
    together = model.encode(tokens, mask)
    torch.testing.assert_close(together[:1, :5], model.encode(tokens[:1, :4]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[1:], model.encode(tokens[1:]), atol=1e-5, rtol=1e-5)
    other = torch.where(mask[..., None], tokens, torch.full_like(tokens, 100.0))
    assert torch.equal(together[0, :5], model.encode(other, mask)[0, :5])


def test_forward_against_a_plain_masked_autoencoder() -> None:
    """Embed all, select, run timm's blocks, put the latents back one by one, run timm's blocks."""
    model = MaskedViT((3, 32, 48), 8)
    model.initialise(1)
    patches = torch.rand(2, 24, 192)
    index = torch.stack([torch.randperm(24)[:6] for _ in range(2)])
    reconstruction = model(patches, index)
    for b in range(2):
        tokens = model.embed_patch(patches[b]) + sincos_positions(64, 4, 6)
        x = torch.cat([model.cls[0], tokens[index[b]]])[None]
        for block in model.blocks:
            x = block(x)
        latent = model.embed_latent(model.norm(x))[0]
        full = model.mask_token[0].repeat(24, 1)
        for k, n in enumerate(index[b].tolist()):
            full = torch.cat([full[:n], latent[1 + k : 2 + k], full[n + 1 :]])
        x = torch.cat([latent[:1], full + sincos_positions(128, 4, 6)])[None]
        for block in model.decoder_blocks:
            x = block(x)
        expected = model.predict(model.decoder_norm(x))[0, 1:]
        torch.testing.assert_close(reconstruction[b], expected, atol=1e-5, rtol=1e-5)


def test_patch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(FoveaError, match="patch: 10 does not divide the image, 96 x 96"):
        MaskedViT(SHAPE, 10)


def test_mixed_precision_reconstructs_nearly_the_same() -> None:
    """The GPU's bf16 on the CPU: every part accepts it, and gradients are in float32."""
    model = MaskedViT((3, 32, 32), 8)
    model.initialise(2)
    patches, index = torch.rand(4, 16, 192), torch.rand(4, 16).argsort(1)[:, :4]
    exact = model(patches, index)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(patches, index)
        loss = (mixed.float() - normalise(patches)).square().mean()
    assert mixed.dtype == torch.bfloat16
    assert (mixed.float() - exact).std() < 0.02 * exact.std()
    torch.autograd.backward(loss)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
