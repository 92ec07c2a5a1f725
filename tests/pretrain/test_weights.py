"""The committed weights: complete, equal to their manifest, and useful."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench.error_map import random_frames
from datasets import envs
from datasets.files import sha256_file
from pipeline import params
from pipeline.commands.recipe import RECIPES, recipes
from pipeline.runtime.artifact import IMAGES
from pretrain.frozen import load_encoder

FOLDERS = sorted(path.parent for path in (RECIPES / "weights").glob("*/manifest.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_committed_weights_are_those_of_a_recipe(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    tables = [params.load(recipes()[name]).tables["encoders"] for name in ("spirl", "seaquest")]
    entries = [encoders[folder.name] for encoders in tables if folder.name in encoders]
    assert entries and all(manifest["entry"] == entry.resolved() for entry in entries)
    for name in ("model.safetensors", "config.json", "curve.csv"):
        assert sha256_file(folder / name) == manifest["files"][name]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_committed_weights_state_how_their_images_are_made(folder: Path) -> None:
    label = json.loads((folder / "manifest.json").read_text())["entry"]["data"]
    name = label.removeprefix("frames/")
    tables = [params.load(recipes()[recipe]).tables["frames"] for recipe in ("spirl", "seaquest")]
    keys = next(frames[name].keys for frames in tables if name in frames)
    stated = json.loads((folder / IMAGES).read_text())
    assert stated == envs.preprocessing(keys.env) | {"source": keys.source}


@torch.no_grad()
def test_frostbites_encoder_selects_some_patches_of_every_frame() -> None:
    """The paper has 50 at most; without that limit 33 to 51 are salient in 5,000 frames."""
    encoder = load_encoder(RECIPES / "weights" / "frostbite-mae")
    frames = random_frames("atari/Frostbite", 60)[::10]
    counts = torch.cat([encoder(frame[None])["mask"].sum(1) for frame in frames])
    assert encoder.max_tokens == 50
    assert (counts >= 20).all() and counts.float().std() > 0, counts
