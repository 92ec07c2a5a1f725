"""Error maps of real games against the definition: evidence that the shortcuts are exact.

Of each game 64 frames of a random policy, at the paper's size; `bench.exact` compares 256. The
cache computes all maps, half of them one frame at a time, as in training of a policy, half several
at a time, as in evaluation. In every frame some centres, corners and edges among them, are compared
with the centre computed alone by the whole model, and in some frames the whole map and the selected
patches.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.error_map import random_frames
from pretrain.modules.vit import MaskedViT, normalise
from pretrain.spirl import select
from pretrain.spirl.error_cache import ErrorCache
from pretrain.spirl.error_map import error_map, neighbourhoods

FRAMES, WHOLE = 64, 2  # frames of a game; those of them compared at all 144 centres
TOGETHER = 8
CLOSE = 1e-5


def definition(model: MaskedViT, image: Tensor, centres: list[int]) -> Tensor:
    """Each centre from its existing neighbours alone, through the whole decoder: (centres,)."""
    index, real, _ = neighbourhoods(*model.grid)
    patches = model.to_patches(image[None])
    target = normalise(patches)[0]
    errors = []
    for centre in centres:
        reconstruction = model(patches, index[centre][real[centre]][None])[0, centre]
        errors.append((reconstruction - target[centre]).square().mean())
    return torch.stack(errors)


def perturbed_network() -> MaskedViT:
    """A network of the paper's size whose weights all differ from initialisation."""
    model = MaskedViT((3, 96, 96), 8)
    model.initialise(0)
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    return model.requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize("game", ["Frostbite", "MsPacman", "Seaquest", "BattleZone"])
@torch.no_grad()
def test_maps_of_a_game_equal_the_definition(game: str) -> None:
    model, frames = perturbed_network(), random_frames(f"atari/{game}", FRAMES)
    memory, random = ErrorCache(model), np.random.default_rng(0)
    border = [c for c in range(144) if c // 12 in (0, 11) or c % 12 in (0, 11)]
    alone, together = torch.split(frames, FRAMES // 2)
    groups = [*torch.split(alone, 1), *torch.split(together, TOGETHER)]
    maps = torch.cat([memory(group) for group in groups])
    for number, (frame, errors) in enumerate(zip(frames, maps, strict=True)):
        corner = (0, 11, 132, 143)[number % 4]
        centres = [corner, int(random.choice(border)), int(random.integers(144))]
        torch.testing.assert_close(
            errors[centres], definition(model, frame, centres), atol=CLOSE, rtol=0
        )
        if number % (FRAMES // WHOLE) == FRAMES // WHOLE - 1:
            expected = definition(model, frame, list(range(144)))
            torch.testing.assert_close(errors, expected, atol=CLOSE, rtol=0)
            torch.testing.assert_close(
                error_map(model, frame[None])[0], expected, atol=CLOSE, rtol=0
            )
            assert same_selection(errors, expected)
    assert memory.hits > 0.3 * FRAMES * 144 or game == "BattleZone"


def same_selection(actual: Tensor, expected: Tensor) -> bool:
    """Whether both maps select the same patches, except those within rounding of the cut."""
    selections = []
    for error in (actual, expected):
        index, mask = select.dynamic(error[None], 1.0, 144)
        selections.append(set(index[mask].tolist()))
    brink = float(expected.mean())
    return all(abs(float(expected[p]) - brink) < CLOSE for p in selections[0] ^ selections[1])
