"""Self-supervised attention: sizes, equations, gradients, pairs, and a mask that opens at
motion.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from datasets.errors import FoveaError
from datasets.frame import Frame
from datasets.shards import FrameSet, read_frames, write_shard
from pretrain.encoders.attention import Config, Features, Pretraining
from pretrain.frozen import load_saliency, save_encoder
from pretrain.modules.attention_autoencoder import (
    AttentionAutoencoder,
    Reconstruction,
    attention_loss,
)
from pretrain.trainer import Batches, StepsFrom, fit
from pretrain.transforms.pairs import Pairs

GRAY = (1, 84, 84)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sizes_are_the_released_networks() -> None:
    model = AttentionAutoencoder(GRAY)
    counts = [parameters(part) for part in (model.features, model.mask, model.decoder)]
    assert counts == [53_376, 92_513, 84_225] and parameters(model) == 230_114
    image = torch.rand(2, *GRAY)
    assert model.features(image).shape == (2, 32, 7, 7) and model.mask(image).shape == (2, 1, 7, 7)


@pytest.mark.parametrize("shape", [(1, 84, 84), (3, 96, 96), (3, 210, 160), (1, 36, 41)])
def test_the_reconstruction_has_the_frames_shape(shape: tuple[int, int, int]) -> None:
    model = AttentionAutoencoder(shape)
    output = model(torch.rand(2, *shape), torch.rand(2, *shape))
    assert output.target.shape == output.auto.shape == (2, *shape)
    with pytest.raises(ValueError, match="must be at least 36 pixels"):
        AttentionAutoencoder((1, 35, 84))


def test_features_are_mixed_as_in_equation_1() -> None:
    model = AttentionAutoencoder(GRAY)
    model.initialise(0)
    source, target = torch.rand(2, 3, *GRAY)
    psi_s, psi_t = model.mask(source), model.mask(target)
    mixed = (1 - psi_s) * (1 - psi_t) * model.features(source) + psi_t * model.features(target)
    output = model(source, target)
    torch.testing.assert_close(output.target, model.decoder(mixed))
    torch.testing.assert_close(output.auto, model.decoder(model.features(target)))
    torch.testing.assert_close(output.mask, psi_t)


def backward(output: Reconstruction, target: Tensor) -> None:
    torch.autograd.backward(attention_loss(output, target, delta=0.01, sparsity=1e-3))


def test_the_source_side_gets_no_gradient() -> None:
    """The gradient is that for constant source features: compared with autograd on constants."""
    model = AttentionAutoencoder(GRAY)
    model.initialise(1)
    source, target = torch.rand(2, 2, *GRAY)
    source.requires_grad_()
    output = model(source, target)
    backward(output, target)
    assert source.grad is None
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    behind = (model.features(source) * (1 - model.mask(source))).detach()
    features, mask = model.features(target), model.mask(target)
    image = model.decoder((1 - mask) * behind + mask * features)
    again = Reconstruction(image, model.decoder(features), mask)
    backward(again, target)
    expected = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) == len(expected) == len(list(model.parameters()))
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def plain_loss(output: Reconstruction, target: Tensor, delta: float, sparsity: float) -> float:
    """Eq. 2 and 3 pixel by pixel, as means."""
    first, second = 0.0, 0.0
    for image, auto, true in zip(
        output.target.flatten(), output.auto.flatten(), target.flatten(), strict=True
    ):
        squared = (image.item() - true.item()) ** 2
        first += squared if squared >= delta else 0.0
        second += (auto.item() - true.item()) ** 2
    return (first + second) / target.numel() + sparsity * output.mask.mean().item()


def test_the_loss_is_equation_2_and_sums_are_the_same_times_the_pixels() -> None:
    """The threshold is of the squared error: 0.1 off is counted, 0.05 is not."""
    target = torch.rand(2, 1, 6, 5, dtype=torch.float64)
    off = torch.tensor([0.0, 0.05, 0.1000001, 0.3], dtype=torch.float64)
    images = target + off[torch.randint(4, target.shape)]
    output = Reconstruction(images, torch.rand_like(target), torch.rand(2, 1, 2, 2).double())
    mean = attention_loss(output, target, delta=0.01, sparsity=0.7)
    assert mean.item() == pytest.approx(plain_loss(output, target, 0.01, 0.7))
    summed = attention_loss(output, target, delta=0.01, sparsity=0.7, reduction="sum")
    assert summed.item() == pytest.approx(30 * mean.item())


# Pairs


def streams_in(folder: Path, lengths: list[list[int]], size: int = 40, gap: int = 1) -> FrameSet:
    """Streams of episodes of these lengths, `gap` steps apart: a bright square moves over an even
    ground, and another one does not move.
    """
    folder.mkdir(exist_ok=True)
    for stream, episodes in enumerate(lengths):
        frames = []
        for episode, length in enumerate(episodes):
            rng = np.random.default_rng([stream, episode])
            for step in range(length):
                image = np.full((size, size, 1), 60, np.uint8)
                image[2:8, 2:8] = 200
                y, x = rng.integers(0, size - 6, 2)
                image[y : y + 6, x : x + 6] = 255
                end = step == length - 1
                frames.append(Frame(image, 0, 0.0, end, False, episode, gap * step))
        write_shard(folder / f"{stream:03d}-00000.tar", frames, stream=stream, start=0)
    return read_frames(folder)


@pytest.mark.parametrize("gap", [1, 3])
def test_pairs_are_of_one_episode_and_near(tmp_path: Path, gap: int) -> None:
    """Every allowed pair is sampled about equally often, and no other one."""
    frames = streams_in(tmp_path, [[5, 1, 9], [1, 7]], gap=gap)
    pairs = Pairs(frames, 3 * gap, seed=1)
    assert pairs.targets.tolist() == [i for i in range(23) if i not in (5, 15)]
    sources_by_target: dict[int, list[int]] = {int(t): [] for t in pairs.targets}
    for step in range(300):
        sources = pairs.sources(pairs.targets, step)
        for target, source in zip(pairs.targets.tolist(), sources.tolist(), strict=True):
            sources_by_target[target].append(source)
    for target, counted in sources_by_target.items():
        allowed = [
            other
            for other in range(len(frames))
            if other != target
            and frames.stream[other] == frames.stream[target]
            and frames.episode[other] == frames.episode[target]
            and abs(int(frames.step[other]) - int(frames.step[target])) <= 3 * gap
        ]
        counts = [counted.count(other) for other in allowed]
        assert sum(counts) == 300 and min(counts) > 0.4 * 300 / len(allowed)


def test_episodes_of_one_frame_have_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(FoveaError, match="max_gap: 5, but among 3 frames no two"):
        Pairs(streams_in(tmp_path, [[1, 1], [1]]), 5, seed=0)
    with pytest.raises(ValueError, match="max_gap: 0, must be at least 1"):
        Config(max_gap=0)


def test_batches_of_pairs_are_the_same_with_workers_and_shared_out(tmp_path: Path) -> None:
    frames = streams_in(tmp_path, [[5, 1, 9], [1, 7]])
    pairs, columns = Pairs(frames, 3, seed=1), {"image": frames.images}

    def batches(share: slice, workers: int = 0) -> list[dict[str, NDArray[np.uint8]]]:
        data = Batches(columns, 4, 7, share, pairs.targets, pairs.sources)
        loader = DataLoader(data, batch_size=None, sampler=StepsFrom(2, 12), num_workers=workers)
        return [{k: b[k].numpy() for k in ("image", "source")} for b in loader]

    whole = batches(slice(0, None, 1))
    assert len(whole) == 10 and all(b["source"].shape == (4, 40, 40, 1) for b in whole)
    halves = batches(slice(0, None, 2)), batches(slice(1, None, 2))
    for one, other, first, second in zip(
        whole, batches(slice(0, None, 1), 2), *halves, strict=True
    ):
        for name in ("image", "source"):
            np.testing.assert_array_equal(one[name], other[name])
            np.testing.assert_array_equal(one[name][::2], first[name])
            np.testing.assert_array_equal(one[name][1::2], second[name])


# Training


def train(
    frames: FrameSet, folder: Path, *, config: Config, stop: int | None = None
) -> Pretraining:
    folder.mkdir(exist_ok=True)
    height, width, channels = frames.images.shape[1:]
    method = Pretraining(config, (channels, height, width))
    pairs = Pairs(frames, config.pair_gap, config.seed)

    def progress(done: int, _: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    fit(
        method,
        {"image": frames.images},
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
        folder=folder,
        checkpoint_every=5,
        progress=progress,
        clip_norm=config.gradient_norm,
        rows=pairs.targets,
        partners=pairs.sources,
    )
    return method


def test_interrupted_training_ends_in_the_same_bytes(tmp_path: Path) -> None:
    frames = streams_in(tmp_path / "frames", [[30, 1, 20]])
    config = Config(epochs=3, batch_size=10, max_gap=8)
    whole = train(frames, tmp_path / "whole", config=config)
    with pytest.raises(KeyboardInterrupt):
        train(frames, tmp_path / "cut", config=config, stop=8)
    resumed = train(frames, tmp_path / "cut", config=config)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_mask_opens_where_something_moves(tmp_path: Path) -> None:
    """After 120 steps it is wide open at the moving square, and half closed elsewhere."""
    side, square = 52, 10
    places = np.random.default_rng(0).integers(0, side - square, (400, 2))
    frames = []
    for step, (y, x) in enumerate(places.tolist()):
        image = np.full((side, side, 1), 60, np.uint8)
        image[y : y + square, x : x + square] = 255
        frames.append(Frame(image, 0, 0.0, False, False, 0, step))
    write_shard(tmp_path / "000-00000.tar", frames, stream=0, start=0)
    config = Config(epochs=5, batch_size=16, learning_rate=3e-3, sparsity=3e-3)
    method = train(read_frames(tmp_path), tmp_path / "run", config=config)
    save_encoder(method.encoder(Features()), tmp_path / "encoder")
    images = torch.stack([torch.from_numpy(frame.image) for frame in frames[:64]])
    maps = load_saliency(tmp_path / "encoder")(images.permute(0, 3, 1, 2).contiguous())[:, 0]
    assert maps.shape == (64, side, side)
    y, x = torch.from_numpy(places[:64] + square // 2).T
    there, whole = maps[torch.arange(64), y, x].mean(), maps.mean()
    assert there > 0.8 and there > whole + 0.25, (there, whole)
