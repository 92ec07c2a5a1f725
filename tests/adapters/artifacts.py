"""Small artifacts of encoders, of each form of features, with what they should give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from datasets.files import sha256_file
from datasets.sealed import write_manifest
from pretrain import fovea_encoder
from pretrain.encoder import Encoder, Obs
from pretrain.encoders import attention, mae, multimae, pixels
from pretrain.frozen import export, save_encoder
from pretrain.saliency import motion
from tests.contracts.components import images

SHAPE = (3, 32, 40)  # not square, so that swapped axes are noticed
GRAY = (1, 36, 44)
FORMS = ("tokens", "vector", "masked", "pixels")


def encoder_of(form: str) -> Encoder:
    """An untrained encoder whose features have that form."""
    torch.manual_seed(0)
    if form == "tokens":
        small = mae.Config(patch=8, dim=8, depth=1, heads=2, decoder_dim=8, decoder_heads=2)
        return mae.Pretraining(small, SHAPE).encoder()
    if form == "vector":
        config = multimae.Config(dim=8, depth=1, heads=2, decoder_dim=8, decoder_depth=1)
        source = motion.fit(motion.Config(), images(7, seed=1, shape=SHAPE))
        return multimae.Pretraining(config, SHAPE).encoder(None, source)
    if form == "masked":
        return attention.Pretraining(attention.Config(), GRAY).encoder()
    return pixels.Encoder(pixels.Config(), pixels.Features(), SHAPE)


def flat_by_hand(form: str, obs: Obs, frame: int) -> list[float]:
    """The flat form of one frame, number by number."""
    values: list[float] = []
    if form in ("tokens", "vector"):
        for token in obs["x"][frame]:
            values += [float(value) for value in token]
        if form == "tokens":
            values += [1.0 if real else 0.0 for real in obs["mask"][frame]]
        return values
    values += [int(value) / 255 for value in obs["image"][frame].flatten()]
    if form == "masked":
        values += [float(value) for row in obs["attention"][frame] for value in row]
    return values


def write(form: str, folder: Path) -> Encoder:
    """An artifact's folder, and in `example.pt` beside it images, features and flat forms."""
    encoder = encoder_of(form)
    assert encoder.image_shape is not None
    save_encoder(encoder, folder)
    export(encoder, folder / "encoder.pt2")
    shutil.copyfile(fovea_encoder.__file__, folder / "fovea_encoder.py")
    (folder / "images.json").write_text(json.dumps({"env": "atari/Pong"}))
    seal(folder)
    image = images(3, shape=encoder.image_shape)
    obs = encoder(image)
    flat = torch.tensor([flat_by_hand(form, obs, frame) for frame in range(len(image))])
    torch.save((image, obs, flat), folder.with_name(f"{folder.name}-example.pt"))
    return encoder


def seal(folder: Path, form: str = "fovea/1") -> None:
    """Write the manifest of the files that are there."""
    files = {p.name: sha256_file(p) for p in sorted(folder.iterdir()) if p.name != "manifest.json"}
    write_manifest(folder / "manifest.json", {"format": form, "files": files})
