"""Artifacts of older forms can still be loaded: `Component.upgrade`, and the committed weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from datasets.errors import FoveaError
from pipeline.commands.recipe import RECIPES
from pretrain.encoder import Encoder, Header, Weights
from pretrain.encoders import mae, multimae
from pretrain.frozen import EncoderMap, load_encoder, load_saliency, save_encoder, save_saliency
from pretrain.saliency import motion

SHAPE = (3, 32, 32)
SMALL = mae.Config(patch=8, dim=8, depth=1, heads=2, decoder_dim=8, decoder_heads=2)


def frames(count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=generator)


def equal(one: Encoder, other: Encoder) -> bool:
    """Whether both give the same bits."""
    a, b = one(frames()), other(frames())
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", ["frostbite-mae", "seaquest-10k-mae"])
def test_weights_of_older_commits_still_load(name: str, tmp_path: Path) -> None:
    folder = RECIPES / "weights" / name
    encoder = load_encoder(folder)
    tokens = encoder(encoder.blank())
    assert tokens["x"].shape == (1, encoder.max_tokens, 64) and tokens["x"].isfinite().all()
    save_encoder(encoder, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()
    older = json.loads((folder / "config.json").read_text())
    newer = json.loads((tmp_path / "config.json").read_text())
    assert older["config"] == newer["config"]
    assert older["features"].items() <= newer["features"].items()


# A made-up old form of mae: `dim` was called `width`, the model's weights stood under `vit`.


def age(folder: Path, prefix: str = "") -> None:
    """Rewrite an artifact, or the mae that it carries, in the old form."""
    header = json.loads((folder / "config.json").read_text())
    part = header["saliency"] if prefix else header
    part["config"]["width"] = part["config"].pop("dim")
    (folder / "config.json").write_text(json.dumps(header))
    weights = load_file(folder / "model.safetensors")
    new, old = f"{prefix}model.", f"{prefix}vit."
    save_file(
        {old + n.removeprefix(new) if n.startswith(new) else n: w for n, w in weights.items()},
        folder / "model.safetensors",
    )


def from_old_form(header: Header, weights: Weights) -> tuple[Header, Weights]:
    config = dict(header["config"])
    if "width" in config:
        config["dim"] = config.pop("width")
        weights = {name.replace("vit.", "model.", 1): w for name, w in weights.items()}
    return header | {"config": config}, weights


def test_an_upgrade_reads_the_old_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = mae.Pretraining(SMALL, SHAPE).encoder()
    save_encoder(encoder, tmp_path)
    age(tmp_path)
    with pytest.raises(FoveaError, match=r"config\.json.*width"):
        load_encoder(tmp_path)
    monkeypatch.setattr(mae.Encoder, "upgrade", staticmethod(from_old_form))
    assert equal(load_encoder(tmp_path), encoder)
    assert torch.equal(load_saliency(tmp_path)(frames()), EncoderMap(encoder)(frames()))
    save_encoder(encoder, tmp_path)  # today's form goes through the same upgrade untouched
    assert equal(load_encoder(tmp_path), encoder)


def test_an_upgrade_reaches_the_carried_component(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gets that component's header and weights alone."""
    small = multimae.Config(dim=8, depth=1, heads=2, decoder_dim=8, decoder_depth=1)
    carried = EncoderMap(mae.Pretraining(SMALL, SHAPE).encoder())
    encoder = multimae.Pretraining(small, SHAPE).encoder(None, carried)
    save_encoder(encoder, tmp_path)
    age(tmp_path, prefix="saliency.encoder.")
    with pytest.raises(FoveaError, match=r"config\.json.*width"):
        load_encoder(tmp_path)
    names: list[set[str]] = []

    def upgrade(header: Header, weights: Weights) -> tuple[Header, Weights]:
        names.append({name.partition(".")[0] for name in weights})
        return from_old_form(header, weights)

    monkeypatch.setattr(mae.Encoder, "upgrade", staticmethod(upgrade))
    assert equal(load_encoder(tmp_path), encoder)
    assert names == [{"vit"}]


def test_an_upgrade_reads_a_predictor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = motion.fit(motion.Config(), frames(7))
    save_saliency(source, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({"middle": weights["median"]}, tmp_path / "model.safetensors")
    with pytest.raises(FoveaError, match="median is missing"):
        load_saliency(tmp_path)
    monkeypatch.setattr(
        motion.Saliency, "upgrade", staticmethod(lambda h, w: (h, {"median": w["middle"]}))
    )
    assert torch.equal(load_saliency(tmp_path)(frames()), source(frames()))


def test_an_unknown_form_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_encoder(mae.Pretraining(SMALL, SHAPE).encoder(), tmp_path)
    monkeypatch.setattr(
        mae.Encoder, "upgrade", staticmethod(lambda h, w: (h, {"model.cls": w["no such weight"]}))
    )
    with pytest.raises(FoveaError, match=r"config\.json: not a known form of mae"):
        load_encoder(tmp_path)
