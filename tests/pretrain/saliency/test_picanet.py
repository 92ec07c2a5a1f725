"""PiCANet and its student: sizes, losses by hand, augmentation, and training on a few maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datasets.errors import FoveaError
from pretrain import trainer
from pretrain.saliency import picanet, student
from pretrain.transforms.augmentation import colour_jitter, mirror

ALONE = slice(0, None, 1)
SMALL = picanet.Config(size=16, batch_size=4)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def blobs(number: int = 8, side: int = 16) -> dict[str, NDArray[np.uint8]]:
    """Frames of noise with a bright spot each, and maps that mark it."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (number, side, side, 3), np.uint8)
    maps = np.zeros((number, side, side), np.uint8)
    for image, marked in zip(images, maps, strict=True):
        row, column = rng.integers(0, side - 4, 2)
        image[row : row + 4, column : column + 4] = 250
        marked[row : row + 4, column : column + 4] = 255
    return {"image": images, "saliency": maps}


def batch(columns: dict[str, NDArray[np.uint8]], step: int = 0, share: slice = ALONE) -> Any:
    return {k: torch.from_numpy(v)[share] for k, v in columns.items()} | {
        "step": step,
        "share": share,
    }


# The network


def test_as_many_parameters_as_vgg_and_the_cells_have() -> None:
    """ViSaRL's 14.3M and PiCANet's 47.2M, except for the differences in the docstring: here are
    norms of the 49 (global: 100) weights, and an fc7 of 1x1 instead of 3x3.
    """
    local = picanet.Network("LLL", 224)
    released = 14_319_447
    assert count(local) == released + 3 * 2 * 49 == 14_319_741
    with_global = picanet.Network("GGLLL", 224)
    conv5, fc6, fc7 = 3 * (9 * 512 * 512 + 512), 9 * 512 * 1024 + 1024, 1024 * 1024 + 1024
    lstm = 2 * (4 * 256 * (512 + 256) + 8 * 256)
    lstm_of_1024 = 2 * (4 * 256 * (1024 + 256) + 8 * 256)
    weigh = 512 * 100 + 100 + 200
    of_1024 = 2048 + 2049 * 1024 + lstm_of_1024 + lstm + weigh + 2049 * 512 + 1024 + 513
    of_512 = 1024 + 1025 * 512 + 2 * lstm + weigh + 1025 * 512 + 1024 + 513
    assert count(with_global) == count(local) + conv5 + fc6 + fc7 + of_1024 + of_512 == 38_830_807
    assert round((count(with_global) + 8 * 1024 * 1024) / 1e6, 1) == 47.2
    assert count(student.Training(student.Config(), (3, 64, 64)).saliency()) == 141_364


@pytest.mark.parametrize(
    ("attention", "sides"), [("LLL", [2, 4, 8, 16]), ("GGLLL", [4, 4, 4, 8, 16, 32])]
)
def test_a_map_at_every_scale(attention: Any, sides: list[int]) -> None:
    size = sides[-1]
    method = picanet.Training(replace(SMALL, attention=attention, size=size), (3, size, size))
    logits = method.network(torch.rand(2, 3, size, size))
    assert [tuple(each.shape) for each in logits] == [(2, 1, side, side) for side in sides]
    assert len(picanet.SUPERVISION[attention]) == len(sides)
    torch.autograd.backward(method.loss(batch(blobs(2, size))))
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), f"{name} never learns"


def test_weights_depend_on_the_seed_alone() -> None:
    def first(seed: int) -> Tensor:
        network = picanet.Training(replace(SMALL, seed=seed), (3, 16, 16)).network
        return torch.cat([p.flatten()[:100] for p in network.parameters()])

    assert torch.equal(first(0), first(0)) and not torch.equal(first(0), first(1))


def test_imagenets_vgg_is_kept_and_the_rest_initialised(monkeypatch: pytest.MonkeyPatch) -> None:
    vgg = picanet.vgg16(pretrained=False)
    for parameter in vgg.parameters():
        nn.init.constant_(parameter, 0.25)

    class Downloaded:
        features = vgg

    monkeypatch.setattr("timm.create_model", lambda name, pretrained: Downloaded)
    for attention in ("LLL", "GGLLL"):
        config = replace(SMALL, init="imagenet", attention=attention)
        network = picanet.Training(config, (3, 16, 16)).network
        for parameter in network.stages[:5].parameters():
            assert (parameter == 0.25).all()
        assert not any((p == 0.25).all() for p in network.cells.parameters())


def test_weights_that_cannot_be_downloaded_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no such host")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(FoveaError, match=r"init: imagenet, but .*no such host.*HF_HOME.*scratch"):
        picanet.Training(replace(SMALL, init="imagenet"), (3, 16, 16))


@pytest.mark.parametrize("word", [picanet, student])
def test_frames_of_another_size_are_resized_by_nearest_and_back(word: ModuleType) -> None:
    source = word.Training(word.Config(size=16), (3, 24, 48)).saliency()
    image = torch.randint(0, 256, (1, 3, 24, 48), dtype=torch.uint8)
    maps = source(image)
    scaled = image[:, :, [i * 24 // 16 for i in range(16)]][..., [3 * i for i in range(16)]]
    same = word.Saliency(word.Config(size=16), (3, 16, 16))
    same.load_state_dict(source.state_dict())
    small = same(scaled)
    expected = small[:, :, [i * 16 // 24 for i in range(24)]][..., [i // 3 for i in range(48)]]
    assert torch.equal(maps, expected)
    with pytest.raises(ValueError, match="image: must be uint8"):
        source(scaled)


# Training


def test_the_loss_weighs_scales_against_maxima_of_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = blobs(2, 8)
    plain = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    monkeypatch.setattr(picanet, "JITTER", plain)
    logits = [torch.randn(2, 1, side, side) for side in (1, 2, 4, 8)]
    for loss in ("bce", "weighted_mse"):
        method = picanet.Training(picanet.Config(size=8, loss=loss), (3, 8, 8))
        inputs: list[Tensor] = []
        turned = []

        def network(x: Tensor, inputs: list[Tensor] = inputs) -> list[Tensor]:
            inputs.append(x)
            return logits

        monkeypatch.setattr(method.network, "forward", network)
        value = method.loss(batch(columns, step=2))
        expected = 0.0
        for frame in range(2):
            image = torch.from_numpy(columns["image"][frame]).permute(2, 0, 1) / 255
            mirrored = torch.allclose(inputs[0][frame], image.flip(2), atol=1e-6)
            assert mirrored or torch.allclose(inputs[0][frame], image, atol=1e-6)
            turned.append(mirrored)
            target = columns["saliency"][frame].astype(float) / 255
            target = target[:, ::-1] if mirrored else target
            for weight, predicted in zip((0.5, 0.8, 0.8, 1.0), logits, strict=True):
                side = predicted.shape[2]
                step, total = 8 // side, 0.0
                for row in range(side):
                    for column in range(side):
                        rows = slice(row * step, (row + 1) * step)
                        columns_ = slice(column * step, (column + 1) * step)
                        t = target[rows, columns_].max()
                        p = 1 / (1 + np.exp(-predicted[frame, 0, row, column].item()))
                        if loss == "bce":
                            total -= t * np.log(p) + (1 - t) * np.log(1 - p)
                        else:
                            total += (p - t) ** 2 / (1.05 - t)
                expected += weight * total / side**2 / 2
        assert turned == [False, True]
        assert value.item() == pytest.approx(expected, rel=1e-5)


def test_the_rate_falls_tenfold_at_35_and_70_percent() -> None:
    optimizer, schedule = picanet.Training(SMALL, (3, 16, 16)).optimizer(20)
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, [3e-4] * 7 + [3e-5] * 7 + [3e-6] * 6)


def test_mirrors_turn_half_of_the_frames_and_nothing_else() -> None:
    images = torch.rand(400, 4, 2, 6)
    output = mirror(images, np.random.default_rng(0), ALONE)
    turned = torch.tensor([torch.equal(f, i.flip(2)) for f, i in zip(output, images, strict=True)])
    assert torch.equal(output[~turned], images[~turned])
    assert 160 < turned.sum() < 240


def test_processes_sample_the_same_augmentation() -> None:
    images, strength = torch.rand(6, 3, 4, 4), picanet.JITTER

    def changed(part: Tensor, share: slice) -> Tensor:
        rng = np.random.default_rng(0)
        return mirror(colour_jitter(part, rng, share, **strength), rng, share)

    whole = changed(images, ALONE)
    for rank in (0, 1):
        share = slice(rank, None, 2)
        assert torch.equal(changed(images[share], share), whole[share])
    assert whole.min() >= 0 and whole.max() <= 1
    assert (whole - images).abs().amax((1, 2, 3)).min() > 0


def test_jitter_multiplies_brightness_within_its_strength() -> None:
    grey = torch.full((300, 3, 2, 2), 0.5)
    jittered = colour_jitter(
        grey, np.random.default_rng(0), ALONE, brightness=0.4, contrast=0, saturation=0, hue=0
    )
    factors = jittered[:, 0, 0, 0] / 0.5
    assert 0.6 <= factors.min() < 0.65 and 1.35 < factors.max() <= 1.4
    assert jittered.std((1, 2, 3)).max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "config", "steps"),
    [
        (picanet, picanet.Config(size=16, learning_rate=1e-3), 20),
        (student, student.Config(size=16), 120),
    ],
    ids=["picanet", "student"],
)
def test_it_learns_where_the_bright_spots_are(word: ModuleType, config: Any, steps: int) -> None:
    columns = blobs()
    method = word.Training(config, (3, 16, 16))
    optimizer, schedule = method.optimizer(steps)
    losses = []
    for step in range(steps):
        loss = method.loss(batch(columns, step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    image = torch.from_numpy(columns["image"]).permute(0, 3, 1, 2).contiguous()
    maps, spot = method.saliency()(image)[:, 0], torch.from_numpy(columns["saliency"] > 0)
    assert maps[spot].mean() > maps[~spot].mean() + 0.4


class StoppedError(Exception):
    """Raised by a test to stop training."""


@pytest.mark.slow
def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    """Statistics of batch norms and the augmentation continue from the checkpoint."""

    def run(folder: Path, stop: int | None) -> dict[str, Tensor]:
        def progress(step: int, _: int) -> None:
            if step == stop:
                raise StoppedError

        config = picanet.Config(size=8, batch_size=4, epochs=2)
        method = picanet.Training(config, (3, 16, 16))
        trainer.fit(
            method,
            blobs(8),
            batch_size=4,
            epochs=2,
            seed=0,
            folder=folder,
            checkpoint_every=2,
            progress=progress,
        )
        return method.saliency().state_dict()

    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole", None)
    with pytest.raises(StoppedError):
        run(tmp_path, 3)
    resumed = run(tmp_path, None)
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_a_frozen_student_is_the_trained_one_without_norms() -> None:
    method = student.Training(student.Config(size=16), (3, 16, 16))
    for layer in method.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
            layer.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    source, x = method.saliency(), torch.rand(3, 3, 16, 16)
    assert method.network.training and not source.training
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in source.modules())
    with torch.no_grad():
        expected = method.network.eval()(x)
        # Over 60 seeds 3e-6 of the deviation at most.
        apart = (source.network(x) - expected).abs().max() / expected.std()
    assert apart < 1e-5 and expected.std() > 0.3
