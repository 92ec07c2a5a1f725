"""Free-Lunch Saliency: the papers' sizes, the network in plain loops, and where its maps lie."""

from __future__ import annotations

import math
import typing
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import typed
from pretrain.metrics.fixations import resize
from pretrain.modules.precision import autocast
from rl import nets
from rl.actor_critic import ActorCritic
from rl.attention import FreeLunch, RegionSensitive, Softmax, over_positions
from rl.net import Core
from rl.nets import fls
from rl.nets.fls import DESIGNS, Config, Net
from rl.stack import FrameStack

VARIANTS = sorted(DESIGNS)
# Parameters at 4 actions (Table 2 and section 4.2), of nature_cnn and of every variant.
COUNTS = {
    "": 1_686_693, "sparse": 1_836_710, "sparse_pooled": 263_846, "sparse_first": 1_762_982,
    "sparse_each": 2_063_016, "sparse_normalised": 1_836_710, "sparse_1x1": 1_703_590,
    "sparse_softplus2": 1_836_710, "sparse_linear": 1_836_710, "sparse_linear_pooled": 263_846,
    "dense": 280_358, "dense_linear": 280_358, "daqn": 130_726, "rs_ppo": 1_720_999,
    "rs_ppo_unpadded": 1_720_999,
}  # fmt: skip
SIDES = {"dense": (9, 11), "dense_linear": (9, 11)}  # of small images; others are 44x52


def make(variant: str, side: tuple[int, int] = (84, 84), stack: int = 4) -> Net:
    torch.manual_seed(0)
    example = {"image": torch.zeros(1, 1, *side, dtype=torch.uint8)}
    return Net(Config(variant), example, stack)  # type: ignore[arg-type]


def frames(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def count(core: Core, actions: int) -> int:
    return sum(parameter.numel() for parameter in ActorCritic(core, actions).parameters())


@pytest.mark.parametrize("variant", ["", *VARIANTS])
def test_it_has_as_many_parameters_as_in_the_paper(variant: str) -> None:
    name, example = "fls" if variant else "nature_cnn", {"image": frames(1, 1, 84, 84)}
    settings = {"variant": variant} if variant else {}
    core = nets.make(name, nets.config_for(name)(**settings), example, stack=4, actions=4)
    assert count(core, 4) == COUNTS[variant]
    assert count(core, 18) == COUNTS[variant] + 7_182


def test_every_variant_has_a_design_and_a_similar_name_is_suggested() -> None:
    names = typing.get_args(typing.get_type_hints(Config)["variant"])
    assert sorted(names) == VARIANTS and set(COUNTS) == {"", *VARIANTS}
    mistakes: list[str] = []
    typed.read_into([Config], {"variant": "sparse_pool"}, mistakes, prefix="net.")
    assert "net.variant: 'sparse_pool'" in mistakes[0] and "mean 'sparse_pooled'" in mistakes[0]
    with pytest.raises(ValueError, match="variant: 'sparce', must be sparse or"):
        Config("sparce")  # type: ignore[arg-type]


def convolved(x: Tensor, layer: Any) -> Tensor:
    """A convolution (C, H, W) position by position."""
    size, stride = layer.kernel_size[0], layer.stride[0]
    padding = layer.padding[0] if layer.padding != "same" else (size - 1) // 2
    x = F.pad(x, [padding] * 4)
    rows, columns = ((side - size) // stride + 1 for side in x.shape[1:])
    result = torch.empty(len(layer.weight), rows, columns, dtype=x.dtype)
    for i in range(rows):
        for j in range(columns):
            window = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
            products = (layer.weight * window).sum((1, 2, 3))
            result[:, i, j] = products + layer.bias
    return result


def attended(variant: str, module: Any, x: Tensor) -> Tensor:
    """The attention (h, w) to the positions of a map (C, h, w)."""
    if variant.startswith("rs_ppo"):
        x = x / x.square().sum(0).sqrt().clamp_min(1e-6)
    hidden = convolved(x, module.hidden)
    if variant.startswith("rs_ppo"):
        hidden = torch.where(hidden > 0, hidden, hidden.exp() - 1)
        scores = convolved(hidden, module.score)
        return sum((one.exp() / one.exp().sum() for one in scores), torch.zeros(()))
    if variant == "daqn":
        score = convolved(hidden.tanh(), module.score)[0]
        return score.exp() / score.exp().sum()
    score = convolved(hidden.clamp_min(0), module.score)[0]
    if variant == "sparse_softplus2":
        return (1 + 2**score).log2()
    attention = (1 + score.exp()).log()
    return attention / attention.sum() if variant == "sparse_normalised" else attention


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_network_in_plain_loops(variant: str) -> None:
    side = SIDES.get(variant, (44, 52))
    net = make(variant, side, stack=2).double()
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):  # zeros would hide mistakes
            nn.init.normal_(parameter, std=0.1)
    image = frames(1, 2, 1, *side)
    x, design = image[0, :, 0].double() / 255, DESIGNS[variant]
    scores = []
    with torch.no_grad():
        for number, layer in enumerate(net.convolutions, start=1):
            x = convolved(x, layer)
            if number < 3 or "linear" not in variant:
                x = x.clamp_min(0)
            if number in design.after:
                attention = attended(variant, net.attention[str(number)], x)
                x = x * attention
                scores.append(attention)
        pooled = "pooled" in variant or "dense" in variant or variant == "daqn"
        vector = x.sum((1, 2)) if pooled else x.flatten()
        expected = F.linear(vector, *net.project[0].parameters()).clamp_min(0)
        features, extras = plain(net, image)
        maps = net.spread([each[None, None].float() for each in scores])
    torch.testing.assert_close(features[0], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(extras["attention"], maps, rtol=1e-4, atol=1e-6)


def plain(net: Net, image: Tensor) -> Any:
    """The network in double precision, which `scaled` does not have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fls, "scaled", lambda bytes_: bytes_.double() / 255)
        net.spread.float()
        return net({"image": image})


def test_softplus_2_is_one_at_zero_and_a_normalised_map_of_sum_one() -> None:
    module, x = FreeLunch(2, beta=math.log(2), size=1), torch.randn(2, 2, 3, 4)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(module(x), torch.ones(2, 1, 3, 4))
    sums = FreeLunch(2, normalised=True)(x).sum((1, 2, 3))
    torch.testing.assert_close(sums, torch.ones(2))
    torch.testing.assert_close(Softmax(2)(x).sum((1, 2, 3)), torch.ones(2))
    torch.testing.assert_close(RegionSensitive(2)(x).sum((1, 2, 3)), torch.full((2,), 2.0))
    assert over_positions(x).shape == x.shape


def transposed(attention: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """The released code's saliency map: a transposed convolution with ones."""
    return F.conv_transpose2d(
        attention, torch.ones(1, 1, size, size), stride=stride, padding=padding
    )


@pytest.mark.parametrize(
    ("variant", "grid", "kernel"),
    [
        ("sparse", 7, (36, 8, 0)),
        ("daqn", 7, (36, 8, 0)),
        ("rs_ppo_unpadded", 7, (36, 8, 0)),
        ("sparse_first", 20, (8, 4, 0)),
        ("dense", 84, (13, 1, 6)),
    ],
)
def test_the_map_is_the_papers_transposed_convolution(
    variant: str, grid: int, kernel: tuple[int, int, int]
) -> None:
    attention = torch.rand(2, 1, grid, grid)
    expected = transposed(attention, *kernel)
    expected /= expected.amax((2, 3), keepdim=True)
    torch.testing.assert_close(make(variant).spread([attention]), expected)


def test_the_maps_after_all_convolutions_are_combined_as_in_the_released_code() -> None:
    maps = [torch.rand(2, 1, grid, grid) for grid in (20, 9, 7)]
    first = maps[0] + transposed(maps[1], 4, 2, 0) + transposed(maps[2], 8, 2, 0)
    expected = transposed(first, 8, 4, 0)
    expected /= expected.amax((2, 3), keepdim=True)
    torch.testing.assert_close(make("sparse_each").spread(maps), expected)


@pytest.mark.parametrize("variant", ["sparse", "sparse_first", "dense", "rs_ppo", "sparse_each"])
@pytest.mark.parametrize("side", [(84, 84), (50, 61)])
def test_a_position_is_spread_over_the_pixels_that_it_depends_on(
    variant: str, side: tuple[int, int]
) -> None:
    """The pixels for which a network of positive weights has a gradient."""
    net, last = make(variant, side, stack=1), DESIGNS[variant].after[-1]
    image = torch.ones(1, 1, *side, requires_grad=True)
    x, grids = image, []
    for number, layer in enumerate(net.convolutions[:last], start=1):
        assert isinstance(layer, nn.Conv2d)
        x = F.conv2d(x, layer.weight.abs(), None, layer.stride, layer.padding)
        grids += [x.shape[2:]] if number in DESIGNS[variant].after else []
    rows, columns = grids[-1]
    for place in ((0, 0), (rows - 1, columns - 1), (rows // 2, columns // 3)):
        (slope,) = torch.autograd.grad(x[0, 0][place], image, retain_graph=True)
        maps = [torch.zeros(1, 1, *grid) for grid in grids]
        maps[-1][0, 0][place] = 0.3
        saliency = net.spread(maps)
        assert saliency.shape == (1, 1, *side) and saliency.max() == 1
        assert torch.equal(saliency > 0, slope > 0)


def test_the_padded_networks_map_is_one_pixel_up_and_left_of_the_released_one() -> None:
    attention = torch.zeros(1, 1, 7, 7)
    attention[0, 0, 3, 5] = 1
    saliency = make("rs_ppo").spread([attention])[0, 0]
    expected = torch.zeros(84, 84)
    expected[23:59, 39:75] = 1  # 8 * 3 - 1 and 8 * 5 - 1, each 36 long
    assert torch.equal(saliency, expected)


def test_uniform_attention_is_brightest_in_the_middle() -> None:
    """By the number of receptive fields: from 1 in a corner to 25."""
    uniform = make("sparse").spread([torch.ones(1, 1, 7, 7)])[0, 0]
    assert uniform[0, 0] == uniform[83, 83] == pytest.approx(1 / 25) == uniform.min()
    assert uniform[42, 42] == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_policys_map_is_of_the_images_size_and_has_no_gradient(variant: str) -> None:
    side = (36, 50)
    net = make(variant, side, stack=1)
    image = frames(2, 1, 1, *side)
    saliency = net({"image": image})[1]["attention"]
    assert saliency.shape == (2, 1, *side) and not saliency.requires_grad
    assert (saliency.amax((1, 2, 3)) == 1).all() and saliency.min() >= 0
    with autocast("auto", torch.device("cpu")):
        half = net({"image": image})[1]["attention"]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, saliency, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("variant", "peak"), [("sparse", 2.69), ("sparse_first", 0.48), ("dense", 0.52)]
)
def test_uniform_attention_has_the_papers_map_and_its_nss(variant: str, peak: float) -> None:
    """It is that of a network whose last convolution gives one value everywhere: its bias."""
    net = make(variant)
    attention = next(iter(net.attention.values()))
    assert isinstance(attention, FreeLunch)
    nn.init.zeros_(attention.score.weight)
    _, own = net({"image": frames(2, 4, 1, 84, 84)})
    uniform = FrameStack(net, 4, {"image": frames(1, 1, 84, 84)}).uniform(own)["attention"]
    torch.testing.assert_close(uniform, own["attention"])
    saliency = resize(uniform[0].numpy(), 210, 160)[0]
    assert (saliency.max() - saliency.mean()) / saliency.std() == pytest.approx(peak, abs=0.005)


def test_uniform_attention_of_other_nets_is_constant() -> None:
    core, extras = Core(), {"attention": torch.rand(2, 3, 7, 7), "value": torch.zeros(2)}
    uniform = core.uniform(extras)["attention"]
    assert uniform.shape == (2, 3, 7, 7)
    assert torch.equal(core.on_image(uniform, (84, 84)), torch.ones(2, 84, 84))


def test_an_all_zero_map_stays_all_zero() -> None:
    assert not make("sparse").spread([torch.zeros(2, 1, 7, 7)]).any()


def test_smaller_images_are_refused() -> None:
    with pytest.raises(ValueError, match="image: 35x84, must be at least 36x36"):
        make("sparse", (35, 84))
    with pytest.raises(ValueError, match="image: 84x33, must be at least 34x34"):
        make("rs_ppo", (84, 33))
    for variant, side in {"sparse": (36, 36), "rs_ppo": (34, 34), "dense": (1, 2)}.items():
        assert FrameStack(make(variant, side), 4, {"image": frames(1, 1, *side)}).attends
