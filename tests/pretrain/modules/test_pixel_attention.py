"""PiCANet's attention against explicit sums over taps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.modules.pixel_attention import GRID, Attend, Global, Local, attend


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tap_by_tap(features: Tensor, weights: Tensor) -> Tensor:
    """One frame's (H, W, C) and (H, W, 7, 7): all neighbours of every pixel, two pixels apart."""
    height, width, _ = features.shape
    out = torch.zeros_like(features)
    for y in range(height):
        for x in range(width):
            for row in range(7):
                for column in range(7):
                    there = y + 2 * (row - 3), x + 2 * (column - 3)
                    if 0 <= there[0] < height and 0 <= there[1] < width:
                        out[y, x] += weights[y, x, row, column] * features[there]
    return out


def test_local_attention_is_the_sum_over_taps() -> None:
    features, weights = random(2, 5, 9, 3), random(2, 5, 9, 49, seed=1).softmax(-1)
    expected = [
        tap_by_tap(f, w) for f, w in zip(features, weights.view(2, 5, 9, 7, 7), strict=True)
    ]
    torch.testing.assert_close(attend(features, weights), torch.stack(expected), atol=1e-6, rtol=0)


def test_halves_are_summed_as_floats() -> None:
    """Rounding after each of 49 additions would differ by more than one rounding of the sum."""
    features, weights = random(1, 5, 9, 3).bfloat16(), random(1, 5, 9, 49, seed=1).softmax(-1)
    weights = weights.bfloat16()
    expected = attend(features.float(), weights.float()).bfloat16()
    assert torch.equal(attend(features, weights), expected)
    apply: Callable[..., Tensor] = Attend.apply
    outputs = [
        torch.autograd.grad(apply(x, weights.to(x.dtype)).float().square().sum(), x)[0].float()
        for x in (features.requires_grad_(), features.detach().float().requires_grad_())
    ]
    torch.testing.assert_close(*outputs, atol=0.05, rtol=0.02)


def test_our_gradient_is_autograd_s() -> None:
    features = random(1, 2, 3, 2).double().requires_grad_()
    weights = random(1, 2, 3, 49, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(Attend.apply, (features, weights))


def test_trained_and_frozen_local_attention_agree() -> None:
    """The weights of a pixel's taps sum to 1, so constant features do not change in the
    interior.
    """
    local = Local(4).eval()
    x = random(2, 4, 6, 6)
    learning = local(x.clone().requires_grad_())
    assert learning.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(local(x), learning.detach(), atol=0, rtol=0)
        even = local(torch.ones(1, 4, 16, 16))
    torch.testing.assert_close(even[..., 6:-6, 6:-6], torch.ones(1, 4, 4, 4))


def test_global_attention_weighs_a_grid_of_the_whole_map() -> None:
    """Each pixel's context is a convex sum over the same grid, with its own weights."""
    module = Global(6, 12).eval()
    x = random(2, 6, 12, 12)
    assert module.stride == 2 and module.weigh.out_channels == 36
    with torch.no_grad():
        context = module(x)
        columns = module.down(x.permute(0, 3, 2, 1).reshape(24, 12, 6))[0]  # down every column
        rows = columns.reshape(2, 12, 12, 512).transpose(1, 2).reshape(24, 12, 512)
        row_output = module.across(rows)[0].reshape(2, 12, 12, 512).permute(0, 3, 1, 2)
        weights = module.norm(module.weigh(row_output)).softmax(1)
        expected = torch.zeros_like(x)
        for tap in range(36):
            there = x[:, :, 2 * (tap // 6), 2 * (tap % 6)]
            expected += weights[:, tap, None] * there[:, :, None, None]
    torch.testing.assert_close(context, expected, atol=1e-6, rtol=0)
    assert context.std((2, 3)).min() > 0


def test_the_grid_at_the_papers_size_is_ten_by_ten() -> None:
    module = Global(2, 28)
    assert module.stride == 3 and module.weigh.out_channels == GRID**2


def test_the_released_code_computes_something_else() -> None:
    """Its reshape without a transpose sums places in place of taps."""
    features, weights = random(1, 8, 8, 3), random(1, 8, 8, 49, seed=1).softmax(-1)
    unfolded = F.unfold(features.permute(0, 3, 1, 2), 7, dilation=2, padding=6)
    channels_first = weights.permute(0, 3, 1, 2)
    correct = (unfolded.view(1, 3, 49, 64) * channels_first.reshape(1, 1, 49, 64)).sum(2)
    attended = attend(features, weights).permute(0, 3, 1, 2).reshape(1, 3, 64)
    torch.testing.assert_close(attended, correct, atol=1e-6, rtol=0)
    mixed = (unfolded.reshape(1, 3, 64, 49) * channels_first.reshape(1, 1, 64, 49)).sum(-1)
    assert (attended - mixed).abs().max() > 0.1


def test_parameters_learn() -> None:
    for module in (Local(4), Global(4, 8)):
        module(random(2, 4, 8, 8).requires_grad_()).square().mean().backward()
        for name, parameter in nn.Module.named_parameters(module):
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
