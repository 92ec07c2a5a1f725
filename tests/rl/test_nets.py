"""The aggregator against torch's own attention, its pad and pool variants, and the convolutions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datasets.errors import FoveaError
from pretrain.encoder import Obs
from rl import agents, nets
from rl.fast import aggregator
from rl.fast.convolution import PatchConv2d
from rl.nets import data_efficient_cnn, tokens


def example(count: int = 5, dim: int = 64, batch: int = 2, stack: int = 4) -> Obs:
    """A stack whose last two tokens are padding everywhere."""
    x = torch.randn(batch, stack, count, dim)
    mask = torch.ones(batch, stack, count, dtype=torch.bool)
    mask[..., -2:] = False
    pos = torch.arange(count).expand(batch, stack, -1)
    return {"x": x * mask[..., None], "mask": mask, "pos": pos}


def net(config: tokens.Config | None = None) -> tokens.Net:
    torch.manual_seed(0)
    network = tokens.Net(config or tokens.Config(), {k: v[:, 0] for k, v in example().items()}, 4)
    for parameter in network.parameters():  # biases that are zero would hide mistakes
        nn.init.normal_(parameter, std=0.3)
    return network


def full_block(network: tokens.Net, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The whole block on CLS + tokens with torch's attention: all rows, weights per head."""
    width = network.config.width
    attention = nn.MultiheadAttention(width, network.config.heads, batch_first=True)
    weight = torch.cat([network.query.weight, network.key_value.weight])
    bias = torch.cat([network.query.bias, network.key_value.bias])
    attention.load_state_dict(
        {
            "in_proj_weight": weight,
            "in_proj_bias": bias,
            "out_proj.weight": network.out.weight,
            "out_proj.bias": network.out.bias,
        }
    )
    x = torch.cat([network.cls.expand(len(x), -1, -1), network.project(x)], dim=1)
    normed = network.norm1(x)
    mask = torch.cat([hidden.new_zeros(len(x), 1), hidden], dim=1)
    attended, weights = attention(
        normed, normed, normed, key_padding_mask=mask, average_attn_weights=False
    )
    x = x + attended if network.config.residual else attended
    update = network.mlp(network.norm2(x))
    return network.norm(x + update if network.config.residual else update), weights


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("pad", ["zero", "learned", "masked"])
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_both_forms_of_the_aggregator_are_the_pooled_rows_of_torchs_block(
    pool: Any, pad: Any, residual: bool
) -> None:
    network = net(tokens.Config(aggregate=pool, pad=pad, residual=residual))
    obs = example()
    x, mask = obs["x"].flatten(0, 1), obs["mask"].flatten(0, 1)
    parameters = [p for name, p in network.named_parameters() if name in ("cls", "project.weight")]
    gradient = torch.randn(len(x), network.config.width)
    forms = [network.aggregate(x, mask), aggregator.aggregate(network, x, mask)]
    if pad == "learned":
        x = x.clone()
        x[~mask] = network.pad
    rows, weights = full_block(network, x, ~mask if pad == "masked" else torch.zeros_like(mask))
    if pool == "cls":
        want, expected_attention = rows[:, 0], weights[:, :, 0, 1:]
    else:
        pooled_rows = rows[:, 1:-2] if pad == "masked" else rows[:, 1:]
        want, expected_attention = pooled_rows.mean(1), weights[:, :, 1:, 1:].mean(2)
    slopes = torch.autograd.grad(want, parameters, gradient)
    for pooled, attention in forms:
        torch.testing.assert_close(pooled, want)
        torch.testing.assert_close(attention, expected_attention)
        ours = torch.autograd.grad(pooled, parameters, gradient)
        for one, other in zip(ours, slopes, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_state_is_its_frames_rows_and_the_newest_ones_attention() -> None:
    network, obs = net(), example()
    features, extras = network(obs)
    pooled, attention = network.aggregate(obs["x"].flatten(0, 1), obs["mask"].flatten(0, 1))
    torch.testing.assert_close(features, pooled.reshape(2, -1))
    torch.testing.assert_close(extras["attention"], attention.view(2, 4, 8, 5)[:, -1])


def test_only_masked_ignores_the_content_of_padding() -> None:
    obs = example()
    other = dict(obs, x=obs["x"].clone())
    other["x"][~obs["mask"]] = 3.0
    expected: dict[Any, bool] = {"masked": True, "learned": True, "zero": False}
    for pad, same in expected.items():
        network = net(tokens.Config(pad=pad))
        assert torch.allclose(network(obs)[0], network(other)[0]) is same


def test_masked_stays_finite_on_an_empty_frame() -> None:
    obs = {key: torch.zeros_like(value) for key, value in example().items()}
    for pool in ("cls", "mean"):
        features, _ = net(tokens.Config(aggregate=pool, pad="masked"))(obs)
        assert features.isfinite().all()


def test_the_order_of_the_patches_does_not_matter_and_that_of_the_frames_does() -> None:
    network, obs = net(), example()
    swapped = {k: v[:, :, [2, 0, 1, 3, 4]] for k, v in obs.items()}
    torch.testing.assert_close(network(obs)[0], network(swapped)[0])
    later = {k: v[:, [1, 0, 2, 3]] for k, v in obs.items()}
    torch.testing.assert_close(network(later)[0][:, 64:], network(obs)[0][:, 64:])
    assert not torch.allclose(network(later)[0], network(obs)[0])


def test_parameter_counts_are_the_papers() -> None:
    assert sum(p.numel() for p in net().parameters()) == 14_880
    assert sum(p.numel() for p in net(tokens.Config(pad="learned")).parameters()) == 14_944
    pixels = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    cnn = data_efficient_cnn.Net(data_efficient_cnn.Config(), {"image": pixels}, 4)
    assert cnn.width == 576
    assert sum(p.numel() for p in cnn.parameters()) == 60_896


def test_the_convolutions_read_every_frame_scaled_to_one() -> None:
    torch.manual_seed(0)
    image = torch.randint(0, 256, (2, 3, 3, 25, 30), dtype=torch.uint8)
    cnn = data_efficient_cnn.Net(data_efficient_cnn.Config(), {"image": image[:, 0]}, 3)
    features, extras = cnn({"image": image})
    first, *rest = cnn.convolutions
    assert isinstance(first, nn.Conv2d)
    x = torch.cat(list(image.unbind(1)), dim=1).float() / 255
    x = nn.functional.conv2d(x, first.weight, first.bias, stride=5)
    torch.testing.assert_close(features, nn.Sequential(*rest)(x).flatten(1), atol=1e-5, rtol=0)
    assert features.shape == (2, cnn.width)
    assert extras == {}


@pytest.mark.parametrize("size", [(96, 96), (25, 25), (29, 34)])
def test_the_first_convolution_is_torchs_own(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, 6, *size), dtype=torch.uint8)
    plain, fast = nn.Conv2d(6, 7, 5, stride=5), PatchConv2d(6, 7, 5)
    fast.load_state_dict(plain.state_dict())
    got, want = fast(image), plain(image.float() / 255)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    gradient = torch.randn_like(want)
    pairs = zip(
        torch.autograd.grad(got, list(fast.parameters()), gradient),
        torch.autograd.grad(want, list(plain.parameters()), gradient),
        strict=True,
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_net_follows_from_the_kind_of_features() -> None:
    for kind, module in (("pixels", data_efficient_cnn), ("tokens", tokens)):
        assert nets.config_for(agents.net_for("rainbow", kind)) is module.Config
    with pytest.raises(FoveaError, match=r"rainbow has no net for 'state'.*tokens, vector, pixels"):
        agents.net_for("rainbow", "state")


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("aggregate", "max", "aggregate"),
        ("pad", "none", "pad"),
        ("heads", 5, "width"),
        ("heads", 0, "heads"),
        ("mlp_ratio", 0, "mlp_ratio"),
    ],
)
def test_impossible_settings_are_refused(field: str, value: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(tokens.Config(), **{field: value})


def test_impossible_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="channels"):
        data_efficient_cnn.Config(channels=(0, 3))
