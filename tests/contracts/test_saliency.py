"""The contract of every source of saliency and every annotator."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.annotation import choice
from datasets.annotation.click_file import FrameClicks, write_clicks
from datasets.annotation.maps import CANVAS
from datasets.frame import Frame
from datasets.shards import read_frames, write_shard
from pretrain.frozen import load_saliency, save_saliency
from tests.contracts.components import SHAPE, images, of, same_files, small


def make_source(component: str) -> Any:
    """An untrained source as the stage `fit` makes it."""
    module = importlib.import_module(component)
    assert ("Training" in vars(module), "fit" in vars(module)) == (
        module.Config.learns,
        not module.Config.learns,
    )
    if module.Config.learns:
        return module.Training(small(module.Config), SHAPE).saliency()
    return module.fit(small(module.Config), images(7, seed=1))


@of("pretrain.saliency")
def test_a_saliency_source_meets_the_contract(component: str, tmp_path: Path) -> None:
    module, image, source = importlib.import_module(component), images(), make_source(component)
    assert isinstance(source, module.Saliency)
    maps = source(image)
    assert maps.shape == (4, 1, *SHAPE[1:]) and maps.dtype == torch.float32
    assert maps.min() >= 0 and maps.max() <= 1 and maps.std() > 0
    assert not maps.requires_grad
    assert source(image[:0]).shape == (0, 1, *SHAPE[1:]), "an empty batch"
    assert torch.equal(source(image), maps), "twice is not the same"
    assert torch.equal(source(image[1:2]), maps[1:2]), "a map depends on the other frames"
    assert not any(parameter.requires_grad for parameter in source.parameters())
    for number, each in enumerate((source, make_source(component))):
        save_saliency(each, tmp_path / str(number))
    assert same_files(tmp_path / "0", tmp_path / "1")
    loaded = load_saliency(tmp_path / "0")
    assert isinstance(loaded, module.Saliency)
    assert torch.equal(loaded(image), maps)
    save_saliency(loaded, tmp_path / "2")
    assert same_files(tmp_path / "0", tmp_path / "2")


# Annotators


@of("datasets.annotation")
def test_an_annotator_clicks_on_frames(component: str, tmp_path: Path) -> None:
    """The configured number of sampled frames, the same ones every time, with clicks inside the
    image.
    """
    module, frames = importlib.import_module(component), read_frames(clicked_frames(tmp_path))
    by_name = module.annotate(module.Config(), "metaworld/reach", frames, 5, tmp_path)
    assert by_name and all(annotator == annotator.lower() for annotator in by_name)
    for clicks in by_name.values():
        assert 0 < len(clicks) <= 5 and set(clicks) <= set(range(len(frames)))
        for places in clicks.values():
            assert places.ndim == 2 and places.shape[1] == 2 and places.dtype == np.float64
            assert len(places) and places.min() >= 0 and places.max() <= CANVAS
    module.check("metaworld/reach", tuple(frames.info))
    assert len(module.SPREAD) == 2 and min(module.SPREAD) > 0 and module.STORED in (True, False)
    fewer = module.annotate(module.Config(), "metaworld/reach", frames, 2, tmp_path)
    assert {name: len(clicks) for name, clicks in fewer.items()} == dict.fromkeys(by_name, 2)
    for name, clicks in fewer.items():
        assert list(clicks) == list(by_name[name])[:2], "fewer are not the first of more"
        assert all(np.array_equal(clicks[index], by_name[name][index]) for index in clicks)
    other = module.annotate(module.Config(seed=1), "metaworld/reach", frames, 5, tmp_path)
    assert {*other} == {*by_name} and all(
        list(other[name]) != list(by_name[name]) for name in by_name
    )


def clicked_frames(folder: Path) -> Path:
    """A shard of frames, and a file with clicks on each of them."""
    points = np.array([[2, 2], [9, 3], [5, 12]], np.float32)
    noise = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    gaze = np.array([[2, 2, 1], [9, 3, 2], [0, 0, 0]], np.uint16)
    rows = [Frame(image, 0, 0.0, False, False, 0, n, {"points": points, "gaze": gaze})
            for n, image in enumerate(noise)]  # fmt: skip
    write_shard(folder / "000-00000.tar", rows, stream=0, start=0)
    frames = read_frames(folder)
    clicked = {key: FrameClicks(choice.digest(frames, n), ((n, 2.5), (400.0, 0.0)))
               for n, key in enumerate(choice.keys(frames))}  # fmt: skip
    write_clicks(folder / "somebody.json", clicked)
    return folder
