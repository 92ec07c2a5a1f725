"""The contract of every encoder: features, frozen weights, artifact, exported program."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pretrain.encoder import Encoder, Obs
from pretrain.frozen import export, load_encoder, save_encoder
from tests.contracts.components import (
    SHAPE,
    components,
    equal,
    images,
    inputs_for,
    kind,
    kind_of,
    make_encoder,
    of,
    same_files,
)

# The encoders that look at images: all but those of the environment's state.
IMAGE_ENCODERS = pytest.mark.parametrize(
    "component", [name for name in components("pretrain.encoders") if kind(name) != "state"]
)


def check_obs(encoder: Encoder, image: Tensor, obs: Obs) -> None:
    """Keys, shapes and types of all kinds of features; padding is zero."""
    batch, (_, height, width) = len(image), encoder.image_shape or SHAPE
    kind = kind_of(obs)
    if kind == "pixels":
        assert obs["image"].shape[0] == batch and obs["image"].shape[1] >= 1
        assert obs["image"].shape[2:] == (height, width)
        assert obs["image"].dtype == torch.uint8
        assert encoder.max_tokens == encoder.dim == 0
        return
    if kind == "masked":
        assert torch.equal(obs["image"], image) and encoder.labels
        mask = obs["attention"]
        assert mask.ndim == 3 and len(mask) == batch and mask.dtype == torch.float32
        assert mask.min() >= 0 and mask.max() <= 1
        assert encoder.max_tokens == encoder.dim == 0
        return
    if kind == "state":
        assert obs["state"].shape == image.shape and obs["state"].dtype == torch.float32
        assert encoder.max_tokens == encoder.dim == 0
        return
    assert kind == ("vector" if encoder.max_tokens == 1 else "tokens")
    x, mask, pos = obs["x"], obs["mask"], obs["pos"]
    assert encoder.max_tokens >= 1 and encoder.dim >= 1
    assert x.shape == (batch, encoder.max_tokens, encoder.dim) and x.dtype == torch.float32
    assert mask.shape == pos.shape == (batch, encoder.max_tokens)
    assert mask.dtype == torch.bool and pos.dtype == torch.int64
    assert x.isfinite().all() and pos.min() >= 0
    assert mask.any(dim=1).all(), "a frame without any token"
    assert not x[~mask].any() and not pos[~mask].any(), "padding that is not zero"
    for b in range(batch):
        positions = pos[b][mask[b]].tolist()
        assert positions == sorted(set(positions)), "a patch twice, or out of order"


@of("pretrain.encoders")
def test_an_encoder_gives_the_features_it_names(component: str) -> None:
    encoder = make_encoder(component)
    image = inputs_for(encoder)
    assert encoder.image_shape == SHAPE
    obs = encoder(image)
    check_obs(encoder, image, obs)
    assert kind_of(obs) == encoder.features.kind
    assert equal(encoder(image), obs), "twice is not the same"
    assert equal(make_encoder(component)(image), obs), "made twice is not the same"
    for b in range(len(image)):
        alone = encoder(image[b : b + 1])
        assert equal(alone, {key: value[b : b + 1] for key, value in obs.items()}), "company"


@of("pretrain.encoders")
def test_an_empty_batch_has_empty_features(component: str) -> None:
    encoder = make_encoder(component)
    expected = encoder(inputs_for(encoder))
    obs = encoder(inputs_for(encoder)[:0])
    assert {key: (value.shape, value.dtype) for key, value in obs.items()} == {
        key: (torch.Size((0, *value.shape[1:])), value.dtype) for key, value in expected.items()
    }


@of("pretrain.encoders")
def test_an_encoder_has_the_methods_of_its_flags(component: str) -> None:
    """Its flags agree with its methods."""
    module, encoder = importlib.import_module(component), make_encoder(component)
    one = inputs_for(encoder, 1)
    assert isinstance(encoder, Encoder) and isinstance(encoder.features.kind, str)
    assert module.Config.learns == ("Pretraining" in vars(module))
    assert encoder.config.needs_saliency == (encoder.saliency is not None)
    if encoder.info is None:
        has_map = encoder.labels or encoder.saliency is not None
        assert (encoder.saliency_map(one) is not None) == has_map
        assert (encoder.salient(one) is not None) == encoder.selects
        assert all(picture.dtype == np.uint8 for picture in encoder.panels(one).values())
    blank = encoder.blank()
    assert encoder(blank).keys() == encoder(one).keys()


@of("pretrain.encoders")
def test_an_encoder_is_frozen(component: str) -> None:
    """None of its parameters requires a gradient, none of its modules is in training mode, and
    encoding changes nothing.
    """
    encoder = make_encoder(component)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with torch.enable_grad():
        obs = encoder(inputs_for(encoder))
    assert not any(value.requires_grad for value in obs.values())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    if before:
        assert not any(module.training for module in encoder.modules())
    assert equal(encoder.state_dict(), before)


@of("pretrain.encoders")
def test_an_encoder_is_saved_and_loaded(component: str, tmp_path: Path) -> None:
    encoder = make_encoder(component)
    image = inputs_for(encoder)
    save_encoder(encoder, tmp_path / "a")
    save_encoder(make_encoder(component), tmp_path / "b")
    loaded = load_encoder(tmp_path / "a")
    save_encoder(loaded, tmp_path / "c")
    assert equal(loaded(image), encoder(image))
    assert loaded.image_shape == SHAPE
    assert (loaded.max_tokens, loaded.dim) == (encoder.max_tokens, encoder.dim)
    assert same_files(tmp_path / "a", tmp_path / "b") and same_files(tmp_path / "a", tmp_path / "c")


@IMAGE_ENCODERS
def test_an_encoder_is_exported(component: str, tmp_path: Path) -> None:
    """The program gives the same for any batch."""
    encoder = make_encoder(component)
    export(encoder, tmp_path / "encoder.pt2")
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    for count in (1, 4):
        expected, exported = encoder(images(count)), program(images(count))
        assert exported.keys() == expected.keys()
        for key, value in expected.items():
            assert exported[key].dtype == value.dtype and exported[key].shape == value.shape
            assert (exported[key].double() - value.double()).abs().max() <= 1e-5, key


@IMAGE_ENCODERS
def test_an_encoder_refuses_other_images(component: str) -> None:
    good = images()
    wrong = [
        good.float(),
        good.bool(),
        good[0],
        good[:, :1],
        good[..., :24],
        good[..., :24, :],
        good.permute(0, 2, 3, 1),
    ]
    for image in wrong:
        with pytest.raises(ValueError, match="image: must be uint8"):
            make_encoder(component)(image)


SPOILT: dict[str, Callable[[Obs], Obs]] = {
    "half": lambda o: o | {"x": o["x"].half()},
    "padding": lambda o: o | {"x": o["x"] + 1},
    "mask": lambda o: o | {"mask": o["mask"].byte()},
    "position": lambda o: o | {"pos": o["pos"].int()},
    "twice": lambda o: o | {"pos": torch.zeros_like(o["pos"])},
    "short": lambda o: {key: value[:, 1:] for key, value in o.items()},
    "empty": lambda o: o | {"x": 0 * o["x"], "pos": 0 * o["pos"], "mask": o["mask"] & False},
    "infinite": lambda o: o | {"x": o["x"].masked_fill(o["mask"][..., None], torch.inf)},
    "batch": lambda o: {key: value[:1] for key, value in o.items()},
}


@pytest.mark.parametrize("fault", SPOILT)
def test_the_check_of_features_finds_faults(fault: str) -> None:
    encoder, image = make_encoder("pretrain.encoders.mae"), images()
    obs = encoder(image)
    assert not obs["mask"].all(), "no padding to look at"
    with pytest.raises(AssertionError):
        check_obs(encoder, image, SPOILT[fault](obs))
