"""Saliency sources against their plain definitions, and encoders as sources."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.errors import FoveaError
from pretrain.encoders import mae, pixels
from pretrain.frozen import load_saliency, save_encoder, save_saliency
from pretrain.modules.maps import unit_range
from pretrain.saliency import centre, motion, random

SHAPE = (3, 24, 32)


def frames(count: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("word", [centre, random, motion])
def test_every_source_meets_the_contract(word: ModuleType, tmp_path: Path) -> None:
    image = frames()
    source = word.fit(word.Config(), frames(7, seed=1))
    maps = source(image)
    assert maps.shape == (5, 1, 24, 32) and maps.dtype == torch.float32
    assert maps.min() >= 0 and maps.max() <= 1
    assert torch.equal(maps[3:4], source(image[3:4]))  # alone as in company
    save_saliency(source, tmp_path / "a")
    save_saliency(word.fit(word.Config(), frames(7, seed=1)), tmp_path / "b")
    assert torch.equal(load_saliency(tmp_path / "a")(image), maps)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_centre_falls_off_from_the_middle() -> None:
    source = centre.Saliency(centre.Config(sigma=0.25), (3, 33, 33))
    bump = source(torch.zeros(1, 3, 33, 33, dtype=torch.uint8))[0, 0]
    assert bump.argmax() == 16 * 33 + 16 and bump[16, 16] == 1
    distance = (8 / (0.25 * 33)) ** 2
    assert bump[16, 24].item() == pytest.approx(np.exp(-distance / 2), rel=1e-6)
    assert torch.equal(bump, bump.flip(0)) and torch.equal(bump, bump.T)


def test_random_is_uniform_and_changes_with_frame_and_seed() -> None:
    images = frames(400)
    config = random.Config(cells=4)
    cells = random.Saliency(config, SHAPE)(images)[:, 0, ::6, ::8].reshape(400, 16)
    histogram = torch.histc(cells, 10, 0, 1) / cells.numel()
    assert (histogram - 0.1).abs().max() < 0.02
    correlations = np.corrcoef(cells.numpy().T) - np.eye(16)
    assert np.abs(correlations).max() < 0.25  # 120 pairs of 400 draws: five deviations
    near = images[:1].clone()
    near[0, 0, 0, 0] ^= 1
    other = random.Saliency(random.Config(cells=4, seed=1), SHAPE)
    same = random.Saliency(config, SHAPE)(images[:1])
    assert not torch.equal(random.Saliency(config, SHAPE)(near), same)
    assert not torch.equal(other(images[:1]), same)


def test_motion_is_the_distance_from_the_median() -> None:
    images = frames(9)
    source = motion.fit(motion.Config(), images)
    expected = np.sort(images.numpy(), axis=0)[4]
    assert np.array_equal(source.median.numpy(), expected)
    distance = np.abs(images.numpy().astype(float) - expected).mean(1)
    low = distance.min((1, 2), keepdims=True)
    high = distance.max((1, 2), keepdims=True)
    stretched = (distance - low) / (high - low)
    np.testing.assert_allclose(source(images)[:, 0].numpy(), stretched, atol=1e-6)


def test_a_flat_map_is_zero() -> None:
    assert not unit_range(torch.full((2, 1, 3, 3), 0.7)).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: centre.Config(sigma=0.0), "sigma: 0.0"),
        (lambda: random.Config(cells=0), "cells: 0"),
        (lambda: random.Config(seed=-1), "seed: -1"),
    ],
)
def test_impossible_settings_name_their_field(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_an_encoder_with_a_saliency_map_labels_too(tmp_path: Path) -> None:
    config = mae.Config(patch=8, dim=8, depth=1, heads=2, decoder_dim=8, decoder_heads=2)
    encoder = mae.Pretraining(config, SHAPE).encoder()
    save_encoder(encoder, tmp_path)
    assert torch.equal(load_saliency(tmp_path)(frames()), encoder.saliency_map(frames()))


def test_encoders_without_a_saliency_map_are_refused(tmp_path: Path) -> None:
    save_encoder(pixels.Encoder(pixels.Config(), pixels.Features(), SHAPE), tmp_path)
    with pytest.raises(FoveaError, match="'pixels' has no saliency map"):
        load_saliency(tmp_path)
    header = json.loads((tmp_path / "config.json").read_text())
    for change in ({"format": "other/1"}, {"format": "fovea-saliency/1", "model": "mae"}):
        (tmp_path / "config.json").write_text(json.dumps(header | change))
        with pytest.raises(FoveaError, match=r"config\.json: (format|model)"):
            load_saliency(tmp_path)
