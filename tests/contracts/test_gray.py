"""Components on gray frames of `?screen=gray84`: one training step, frozen weights, panels."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from pretrain import figures
from pretrain.saliency import motion
from tests.contracts.components import SHAPE, components, images, of, small

GRAY = (1, *SHAPE[1:])
COLOUR = "pretrain.encoders.multimae"  # its modalities are RGB and saliency
IMAGE_ENCODERS = [
    component
    for component in components("pretrain.encoders")
    if importlib.import_module(component).Encoder.info is None and component != COLOUR
]


def gray(count: int) -> torch.Tensor:
    return images(count)[:, :1].contiguous()


def batch(count: int) -> dict[str, Any]:
    """A batch with all columns that any training needs."""
    frames = gray(count).permute(0, 2, 3, 1).contiguous()
    maps = torch.randint(0, 256, frames.shape[:3], dtype=torch.uint8)
    return {
        "image": frames,
        "source": frames.flip(0),
        "saliency": maps,
        "step": 0,
        "share": slice(0, None, 1),
    }


@of("pretrain.saliency")
def test_a_saliency_source_takes_gray_frames(component: str) -> None:
    module = importlib.import_module(component)
    config = small(module.Config)
    if module.Config.learns:
        method = module.Training(config, GRAY)
        torch.autograd.backward(method.loss(batch(4)))
        source = method.saliency()
    else:
        source = module.fit(config, gray(7))
    maps = source(gray(3))
    assert maps.shape == (3, 1, *GRAY[1:]) and maps.std() > 0
    assert maps.min() >= 0 and maps.max() <= 1


@pytest.mark.parametrize("component", IMAGE_ENCODERS)
def test_an_encoder_takes_gray_frames(component: str) -> None:
    module = importlib.import_module(component)
    config = small(module.Config)
    carried = [motion.fit(motion.Config(), gray(7))] if config.needs_saliency else []
    panels = {}
    if config.learns:
        method = module.Pretraining(config, GRAY)
        torch.autograd.backward(method.loss(batch(4)))
        encoder = method.encoder(module.Features(), *carried)
        panels = method.panels(batch(1))
    else:
        encoder = module.Encoder(config, module.Features(), GRAY, *carried)
    obs = encoder(gray(3))
    assert all(len(value) == 3 for value in obs.values())
    panels |= encoder.panels(gray(1))
    assert all(panel.shape[2] == 3 for panel in panels.values())
    if panels:
        figures.grid([panels])


def test_multimae_refuses_gray_frames() -> None:
    module = importlib.import_module(COLOUR)
    with pytest.raises(ValueError, match="takes RGB, not images of 1 channel"):
        module.Pretraining(small(module.Config), GRAY)
