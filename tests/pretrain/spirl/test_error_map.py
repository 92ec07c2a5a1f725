"""The error map against its definition: every centre alone through the whole model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pretrain.modules.vit import MaskedViT, normalise
from pretrain.spirl import select
from pretrain.spirl.error_cache import ErrorCache
from pretrain.spirl.error_map import FEW, error_map, errors_at, neighbourhoods


def plain_error(model: MaskedViT, image: Tensor, centre: int) -> Tensor:
    """One centre: its neighbours are the input, the prediction at the centre is the output."""
    rows, columns = model.grid
    row, column = divmod(centre, columns)
    visible = [
        r * columns + c
        for r in range(max(0, row - 1), min(rows, row + 2))
        for c in range(max(0, column - 1), min(columns, column + 2))
        if (r, c) != (row, column)
    ]
    patches = model.to_patches(image)
    reconstruction = model(patches, torch.tensor(visible, dtype=torch.int64).repeat(len(image), 1))
    error: Tensor = (reconstruction[:, centre] - normalise(patches)[:, centre]).square().mean(-1)
    return error


def build(
    patch: int, shape: tuple[int, int, int] = (3, 96, 96), seed: int = 0, decoder_depth: int = 3
) -> MaskedViT:
    """Small, with biases, norms and tokens as after training: none is 0 or 1."""
    model = MaskedViT(
        shape,
        patch,
        dim=16,
        depth=2,
        heads=2,
        decoder_dim=16,
        decoder_depth=decoder_depth,
        decoder_heads=2,
    )
    model.initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return model.requires_grad_(False)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 32), (16, 48), (32, 64)])
def test_a_grid_may_have_fewer_than_eight_neighbours(height: int, width: int) -> None:
    model = build(16, (3, height, width))
    image = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    expected = torch.stack([plain_error(model, image, c) for c in range(model.patches)], dim=1)
    torch.testing.assert_close(error_map(model, image), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(ErrorCache(model)(image), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("patch", [8, 16])
def test_equals_each_centre_alone(patch: int) -> None:
    model = build(patch)
    image = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    errors = error_map(model, image)
    expected = torch.stack([plain_error(model, image, c) for c in range(model.patches)], dim=1)
    assert errors.shape == (2, model.patches)
    torch.testing.assert_close(errors, expected, atol=1e-5, rtol=0)


def test_equals_the_definition_at_the_papers_size() -> None:
    model = MaskedViT((3, 96, 96), 8).requires_grad_(False)
    model.initialise(5)
    image = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    errors = error_map(model, image)
    for centre in (0, 11, 132, 143, 5, 60, 71, 138, 13, 77):  # corners, edges, inside
        torch.testing.assert_close(
            errors[:, centre], plain_error(model, image, centre), atol=1e-5, rtol=0
        )


@settings(max_examples=10)
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    seed=st.integers(0, 2**31),
    centres=st.integers(1, 20),
)
def test_any_grid_and_any_chunk(rows: int, columns: int, seed: int, centres: int) -> None:
    model = build(4, (3, 4 * rows, 4 * columns), seed)
    generator = torch.Generator().manual_seed(seed)
    size = (2, 3, 4 * rows, 4 * columns)
    image = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    errors = error_map(model, image, centres=centres)
    expected = torch.stack([plain_error(model, image, c) for c in range(model.patches)], dim=1)
    torch.testing.assert_close(errors, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(ErrorCache(model)(image), expected, atol=1e-5, rtol=0)
    cut = expected.mean(1, keepdim=True)  # what is above it is selected, ties aside
    tied = (expected - cut).abs() <= 2e-5
    assert ((errors > errors.mean(1, keepdim=True)) == (expected > cut))[~tied].all()
    index, mask = select.dynamic(errors, 1.0, model.patches)
    for row, places, real in zip(errors, index, mask, strict=True):
        salient = (row > row.mean()).nonzero()[:, 0].tolist()
        assert places[real].tolist() == (salient or [int(row.argmax())])


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_any_depth_of_the_decoder(depth: int) -> None:
    model = build(8, (3, 32, 40), decoder_depth=depth)
    image = torch.randint(0, 256, (1, 3, 32, 40), dtype=torch.uint8)
    expected = torch.stack([plain_error(model, image, c) for c in range(model.patches)], dim=1)
    torch.testing.assert_close(error_map(model, image), expected, atol=1e-5, rtol=0)


def test_single_centres_have_the_same_bits_in_any_batch() -> None:
    """At the paper's size, in every row of a pass: this is why the cache never changes a result."""
    model = MaskedViT((3, 96, 96), 8).requires_grad_(False)
    model.initialise(5)
    image = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    patches, near = model.to_patches(image), neighbourhoods(*model.grid)
    watched = (0, 6, 77)  # a corner, an edge, inside
    expected = torch.cat([plain_error(model, image, c) for c in watched])
    alone = [errors_at(model, patches, torch.tensor([c]), near) for c in watched]
    torch.testing.assert_close(torch.cat(alone), expected, atol=1e-5, rtol=0)
    for row in range(FEW):
        for centre, error in zip(watched, alone, strict=True):
            company = torch.randint(0, 144, (FEW + 3,))
            company[row] = centre
            errors = errors_at(model, patches, company, near)
            assert errors.shape == company.shape and torch.equal(errors[row : row + 1], error)


def test_depends_on_nothing_but_the_nine_patches() -> None:
    model = build(8)
    image = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    changed = image.clone()
    changed[:, :, 40:48, 40:48] ^= 255  # the patch in row 5, column 5
    differs = (error_map(model, image) != error_map(model, changed)).view(12, 12)
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[4:7, 4:7] = True
    assert torch.equal(differs, expected)


def test_neighbourhoods_of_corner_edge_and_inside() -> None:
    index, real, place = neighbourhoods(3, 4)
    assert real.sum(1).tolist() == [3, 5, 5, 3, 5, 8, 8, 5, 3, 5, 5, 3]
    assert index[0][real[0]].tolist() == [1, 4, 5]
    assert index[5].tolist() == [0, 1, 2, 4, 6, 8, 9, 10]
    assert place[5].tolist() == [1, 2, 3, 0, 4, 0, 5, 0, 6, 7, 8, 0]
