"""Encoders that carry a source of saliency: pixels in, features out, from the artifact alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from datasets.errors import FoveaError
from pretrain.encoders import channels, mae, multimae
from pretrain.frozen import (
    EncoderMap,
    export,
    load_encoder,
    load_saliency,
    save_encoder,
    save_saliency,
)
from pretrain.saliency import centre, motion, picanet, random, student

SHAPE = (3, 32, 32)
SMALL = multimae.Config(dim=16, depth=1, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2)
SOURCES = ("motion", "centre", "random", "mae", "multimae", "student", "picanet")


def frames(count: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=generator)


def source(word: str) -> nn.Module:
    if word == "mae":
        config = mae.Config(
            dim=8, depth=1, heads=2, decoder_dim=8, decoder_depth=1, decoder_heads=2
        )
        return EncoderMap(mae.Pretraining(config, SHAPE).encoder())
    if word == "multimae":  # which says what its own source says
        return EncoderMap(multimae.Pretraining(SMALL, SHAPE).encoder(None, source("motion")))
    if word == "student":
        return student.Training(student.Config(size=16), SHAPE).saliency()
    if word == "picanet":
        return picanet.Training(picanet.Config(size=8), SHAPE).saliency()
    module: Any = {"motion": motion, "centre": centre, "random": random}[word]
    saliency: nn.Module = module.fit(module.Config(), frames(7, seed=1))
    return saliency


def looking(word: str, features: multimae.Features | None = None) -> multimae.Encoder:
    return multimae.Pretraining(SMALL, SHAPE).encoder(features, source(word))


def visible(word: str, kind: Any) -> channels.Encoder:
    config = channels.Config(channels=kind)
    carried = source(word) if config.needs_saliency else None
    return channels.Encoder(config, channels.Features(), SHAPE, carried)


@pytest.mark.parametrize("word", SOURCES)
def test_config_and_weights_are_all_that_is_needed(word: str, tmp_path: Path) -> None:
    image, encoder = frames(), looking(word)
    save_encoder(encoder, tmp_path / "a")
    loaded: Any = load_encoder(tmp_path / "a")
    assert torch.equal(loaded(image)["x"], encoder(image)["x"])
    assert torch.equal(loaded.saliency_map(image), source(word)(image))
    assert torch.equal(load_saliency(tmp_path / "a")(image), source(word)(image))
    save_encoder(loaded, tmp_path / "b")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("word", ["mae", "multimae"])
def test_an_encoder_carries_another_as_its_source(word: str, tmp_path: Path) -> None:
    """As in `source/` of a data set that an encoder labelled."""
    labeller: Any = source(word)
    save_encoder(labeller.encoder, tmp_path)
    encoder = multimae.Pretraining(SMALL, SHAPE).encoder(None, load_saliency(tmp_path))
    assert encoder.saliency is not None
    assert torch.equal(encoder.saliency(frames()), labeller(frames()))


def test_features_depend_on_the_source_unless_it_is_not_used() -> None:
    image, alone = frames(), multimae.Features(use_saliency=False)
    both = [looking(word)(image)["x"] for word in ("motion", "centre")]
    rgb = [looking(word, alone)(image)["x"] for word in ("motion", "centre")]
    assert not torch.equal(*both) and torch.equal(*rgb)
    assert not torch.equal(both[0], rgb[0])
    assert (looking("centre")(image)["x"][0] - looking("centre")(image)["x"][1]).any()


def test_saliency_is_left_out_at_acting_by_one_key(tmp_path: Path) -> None:
    save_encoder(looking("motion"), tmp_path)
    po = load_encoder(tmp_path, features={"use_saliency": False, "pool": "none"})
    assert po.max_tokens == 17
    assert load_encoder(tmp_path, features={"pool": "none"}).max_tokens == 33
    assert po.saliency is not None and not po.uses_saliency  # so a video has no overlay


def test_rgb_alone_carries_nothing(tmp_path: Path) -> None:
    config = multimae.Config(
        modalities="rgb", dim=16, depth=1, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
    )
    save_encoder(multimae.Pretraining(config, SHAPE).encoder(), tmp_path)
    assert "saliency" not in json.loads((tmp_path / "config.json").read_text())
    assert load_encoder(tmp_path)(frames())["x"].shape == (5, 1, 16)
    with pytest.raises(FoveaError, match="'multimae' has no saliency map"):
        load_saliency(tmp_path)


@pytest.mark.parametrize("word", ["motion", "random", "mae"])
def test_channels_against_their_formulas(word: str) -> None:
    image = frames()
    maps = source(word)(image).numpy().astype(np.float64)
    rgb = image.numpy()
    plane = np.rint(255 * maps).astype(np.uint8)
    expected = {
        "rgb": rgb,
        "saliency": plane,
        "rgbxs": np.rint(rgb * maps).astype(np.uint8),
        "rgbs": np.concatenate([rgb, plane], axis=1),
    }
    for kind, channel in expected.items():
        planes = visible(word, kind)(image)["image"]
        assert planes.dtype == torch.uint8 and planes.shape == channel.shape
        assert np.abs(planes.numpy().astype(int) - channel).max() <= 1  # a tie in float32
        assert (planes.numpy() != channel).mean() < 1e-3
        assert planes.max() > 200, "on the scale of RGB"


def test_rgb_is_the_frame() -> None:
    image = frames()
    planes = visible("motion", "rgb")(image)["image"]
    assert torch.equal(planes, image) and planes.data_ptr() != image.data_ptr()


@pytest.mark.parametrize(("kind", "pictures"), [("rgb", 2), ("saliency", 2), ("rgbs", 3)])
def test_panels_of_channels(kind: str, pictures: int) -> None:
    panels = visible("motion", kind).panels(frames(1))
    assert len(panels) == pictures
    assert all(p.dtype == np.uint8 and p.shape == (32, 32, 3) for p in panels.values())


def test_channels_without_a_source_are_refused() -> None:
    with pytest.raises(ValueError, match=r"saliency: is None"):
        channels.Encoder(channels.Config(), channels.Features(), SHAPE)


@pytest.mark.slow
@pytest.mark.parametrize("word", ["centre", "random", "mae", "student", "picanet"])
def test_exported_with_its_source(word: str, tmp_path: Path) -> None:
    """For any batch; motion is in the contracts of every encoder."""
    image, encoder = frames(), looking(word)
    export(encoder, tmp_path / "encoder.pt2")
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    for count in (1, 3, 5):
        tokens = program(image[:count])["x"]
        assert (tokens - encoder(image[:count])["x"]).abs().max() <= 1e-5


def edit(folder: Path, **changes: Any) -> None:
    header = json.loads((folder / "config.json").read_text())
    header["saliency"] |= changes
    (folder / "config.json").write_text(json.dumps(header))


def lose(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["saliency.median"]
    save_file(weights, folder / "model.safetensors")


def without(folder: Path) -> None:
    header = json.loads((folder / "config.json").read_text())
    del header["saliency"]
    (folder / "config.json").write_text(json.dumps(header))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without, "config.json: saliency is None"),
        (lose, "saliency.median is missing"),
        (lambda f: edit(f, format="other/1"), "config.json: format is 'other/1'"),
        (lambda f: edit(f, model="../evil"), "config.json: model"),
        (lambda f: edit(f, model="centre"), "saliency.median is torch.uint8"),
        (lambda f: edit(f, config={"a": 1}), "config.json: .*'a'"),
        (lambda f: edit(f, image_shape=[3, 8]), "config.json: image_shape"),
        (lambda f: edit(f, image_shape=[3, 16, 16]), "saliency.median"),
    ],
)
def test_a_damaged_source_names_the_file(tmp_path: Path, damage: Any, message: str) -> None:
    save_encoder(looking("motion"), tmp_path)
    damage(tmp_path)
    with pytest.raises(FoveaError, match=message):
        load_encoder(tmp_path)


def test_a_source_without_a_map_is_not_carried(tmp_path: Path) -> None:
    save_encoder(looking("motion"), tmp_path)
    edit(tmp_path, format="fovea-encoder/1", model="pixels", config={}, features={})
    with pytest.raises(FoveaError, match="'pixels' has no saliency map"):
        load_encoder(tmp_path)


def test_a_loaded_source_is_frozen(tmp_path: Path) -> None:
    saliency: Any = source("motion")
    save_saliency(saliency, tmp_path)
    loaded = load_saliency(tmp_path)
    assert not any(part.training for part in loaded.modules())
