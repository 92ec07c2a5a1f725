"""MultiMAE against plain loops over images, heads and patches, and its predictions after
training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain import trainer
from pretrain.encoders import multimae
from pretrain.encoders.multimae import Config, Features, Pretraining
from pretrain.modules.vit import patchify, sincos_positions
from pretrain.saliency import centre
from pretrain.schedule import noise
from pretrain.transforms import crops
from pretrain.transforms import token_masking as budgets

SHAPE = (3, 32, 32)
SMALL = Config(
    dim=16, depth=2, heads=2, decoder_dim=24, decoder_depth=2, decoder_heads=4, batch_size=8
)
ALL = slice(0, None, 1)


def batch_of(count: int = 6, seed: int = 0, share: slice = ALL) -> dict[str, Any]:
    """Noise, this process's share of it."""
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 256, (count, 32, 32, 3), np.uint8))[share]
    saliency = torch.from_numpy(rng.integers(0, 256, (count, 32, 32), np.uint8))[share]
    return {"image": image, "saliency": saliency, "step": 3, "share": share}


def method(**changes: Any) -> Pretraining:
    """With norms and tokens other than one and zero, so that a mix-up is detected."""
    training = Pretraining(replace(SMALL, **changes), SHAPE)
    generator = torch.Generator().manual_seed(1)
    for parameter in training.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return training


@pytest.mark.parametrize(
    ("config", "parameters", "acting"),
    [
        (Config(), 13_018_816, 3_225_344),
        (Config(norm_rgb=False), 9_743_360, 3_225_344),
        (Config(modalities="rgb"), 9_759_104, 3_208_704),
    ],
)
def test_parameters_as_the_papers(config: Config, parameters: int, acting: int) -> None:
    training = Pretraining(config, (3, 64, 64))
    assert sum(p.numel() for p in training.parameters()) == parameters
    encoder = training.encoder(None, nn.Identity()) if config.needs_saliency else training.encoder()
    assert sum(p.numel() for p in encoder.parameters()) == acting


# The network, an image and a head at a time


def normed(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return centred / scale * layer.weight + layer.bias


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """(Q, D), (T, D), (T, D) -> (Q, D), row by row."""
    width, rows = q.shape[1] // heads, []
    for row in q:
        parts = []
        for h in range(heads):
            of = slice(h * width, (h + 1) * width)
            scores = torch.stack([(row[of] * key[of]).sum() / math.sqrt(width) for key in k])
            weight = scores.exp() / scores.exp().sum()
            parts.append(sum(w * value[of] for w, value in zip(weight, v, strict=True)))
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def perceptron(x: Tensor, mlp: Any) -> Tensor:
    x = F.linear(x, mlp.fc1.weight, mlp.fc1.bias)
    x = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    return F.linear(x, mlp.fc2.weight, mlp.fc2.bias)


def through(x: Tensor, block: Any, heads: int) -> Tensor:
    q, k, v = F.linear(normed(x, block.norm1), block.attn.qkv.weight, block.attn.qkv.bias).chunk(
        3, dim=1
    )
    x = x + F.linear(attention(q, k, v, heads), block.attn.proj.weight, block.attn.proj.bias)
    return x + perceptron(normed(x, block.norm2), block.mlp)


def patches_of(training: Pretraining, images: Tensor) -> dict[str, Tensor]:
    """(B, 4, H, W) in [0, 1]: RGB standardised by ImageNet's statistics, saliency unchanged."""
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    patches = {"rgb": patchify((images[:, :3] - mean) / std, 8)}
    return (
        patches
        if training.config.modalities == "rgb"
        else patches | {"saliency": patchify(images[:, 3:], 8)}
    )


def encoded(training: Pretraining, patches: dict[str, Tensor], b: int, keep: list[int]) -> Tensor:
    """The tokens of one image at `keep`, then the global one."""
    tokens, names = [], list(patches)
    for token in keep:
        name, n = names[token // 16], token % 16
        layer: Any = training.model.project[name]
        place = sincos_positions(16, 4, 4)[n]
        tokens.append(layer.weight @ patches[name][b, n] + layer.bias + place)
    x = torch.stack([*tokens, training.model.global_token])
    for block in training.model.blocks:
        x = through(x, block, 2)
    return x


def reconstruct(
    training: Pretraining, name: str, own: int, latent: Tensor, keep: list[int]
) -> Tensor:
    """A decoder's reconstruction of all 16 patches of modality number `own`."""
    d: Any = training.decoders[name]
    places, vectors = sincos_positions(24, 4, 4), list(d.modality.values())
    rows = F.linear(latent, d.embed_latent.weight, d.embed_latent.bias)
    context = [
        row + places[token % 16] + vectors[token // 16]
        for row, token in zip(rows, keep, strict=False)
    ]
    queries = []
    for n in range(16):
        token = 16 * own + n
        row = rows[keep.index(token)] if token in keep else d.mask_token
        queries.append(row + places[n] + vectors[own])
    memory = normed(torch.stack([*context, rows[-1]]), d.norm_context)
    k, v = F.linear(memory, d.key_value.weight, d.key_value.bias).chunk(2, dim=1)
    q = F.linear(normed(torch.stack(queries), d.norm_query), d.query.weight, d.query.bias)
    x = F.linear(attention(q, k, v, 4), d.proj.weight, d.proj.bias)
    x = x + perceptron(normed(x, d.norm_mlp), d.mlp)
    for block in d.blocks:
        x = through(x, block, 4)
    return F.linear(x, d.predict.weight, d.predict.bias)


@pytest.mark.parametrize("modalities", ["rgb+saliency", "rgb"])
def test_the_loss_against_plain_loops(modalities: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one image all of RGB is visible, and in one all of saliency: these have no
    hidden patches.
    """
    training = method(modalities=modalities, mask=0.5)
    batch, names = batch_of(), modalities.split("+")
    visible = 8 * len(names)
    assert training._visible == visible
    rng = noise(0, 3)
    boxes, mirrored = crops.boxes(rng, 6, (32, 32)), rng.random(6) < 0.5
    keep = budgets.sample(rng, 6, len(names), 16, visible)
    if len(names) == 2:
        keep[0], keep[1] = np.arange(16), np.arange(16, 32)
        monkeypatch.setattr(budgets, "sample", lambda *_: keep)
    assert mirrored.any() and not mirrored.all()
    planes = torch.cat([batch["image"], batch["saliency"][..., None]], -1).permute(0, 3, 1, 2) / 255
    images = crops.crop(planes, torch.from_numpy(boxes), torch.from_numpy(mirrored))
    patches = patches_of(training, images)
    expected = torch.zeros(())
    with torch.no_grad():
        latents = [encoded(training, patches, b, keep[b].tolist()) for b in range(6)]
        for name in ("rgb", "norm_rgb", "saliency")[: 1 + len(names)]:
            own = int(name == "saliency")
            means = []
            for b in range(6):
                hidden = [n for n in range(16) if 16 * own + n not in keep[b]]
                rows = reconstruct(training, name, own, latents[b], keep[b].tolist())
                errors = []
                for n in hidden:
                    target = patches[names[own]][b, n]
                    if name == "norm_rgb":
                        target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
                    error = (rows[n] - target) ** 2
                    errors.append(error / (1.05 - target) if own else error)
                if hidden:
                    means.append(torch.stack(errors).mean())
            assert len(means) == (5 if len(names) == 2 else 6)
            expected = expected + torch.stack(means).mean()
        torch.testing.assert_close(training.loss(batch), expected, atol=1e-4, rtol=1e-4)


def test_the_shares_of_two_processes_make_the_whole() -> None:
    training = method()
    whole = training.loss(batch_of())
    halves = [training.loss(batch_of(share=slice(rank, None, 2))) for rank in range(2)]
    torch.testing.assert_close(sum(halves) / 2, whole, atol=1e-5, rtol=1e-5)
    torch.autograd.backward(whole)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in training.parameters())


def test_crops_and_masks_change_with_the_step() -> None:
    training = method()
    losses = [training.loss(batch_of() | {"step": step}).item() for step in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert training.loss(batch_of() | {"step": 0}).item() == pytest.approx(losses[0], rel=0.02)


# Training


def test_initialisation_treats_queries_keys_and_values_apart() -> None:
    training = Pretraining(Config(), (3, 64, 64))
    names = [name for name, part in training.named_modules() if isinstance(part, nn.Linear)]
    assert sum(name.endswith("qkv") for name in names) == 4 + 3 * 3
    for name in names:
        layer: Any = training.get_submodule(name)
        assert not layer.bias.any()
        parts = {"qkv": 3, "key_value": 2}.get(name.rpartition(".")[2], 1)
        for matrix in layer.weight.chunk(parts):
            bound = math.sqrt(6 / sum(matrix.shape))
            assert 0.98 * bound < matrix.abs().max() <= bound, name
    for decoder in training.decoders.values():
        assert not decoder.get_parameter("mask_token").any()
        vectors = torch.cat([decoder.get_parameter(f"modality.{m}") for m in multimae.MODALITIES])
        assert 0.016 < vectors.std() < 0.024
    assert 0.016 < training.model.global_token.std() < 0.024
    again, other = (Pretraining(Config(seed=s), (3, 64, 64)).state_dict() for s in (0, 1))
    assert all(torch.equal(t, again[k]) for k, t in training.state_dict().items())
    assert not torch.equal(again["model.global_token"], other["model.global_token"])


def test_the_optimizer_is_the_papers() -> None:
    """2e-4 at batch 512 after 40 of 200 epochs; no decay of biases, norms, tokens and vectors."""
    training = Pretraining(Config(), (3, 64, 64))
    optimizer, schedule = training.optimizer(1000)
    decayed, bare = optimizer.param_groups
    assert (decayed["weight_decay"], bare["weight_decay"]) == (0.05, 0.0)
    assert decayed["betas"] == (0.9, 0.95) and decayed["eps"] == 1e-8
    names = {id(p): name for name, p in training.named_parameters()}
    assert all(names[id(p)].endswith("weight") for p in decayed["params"])
    free = {names[id(p)] for p in bare["params"]}
    assert {"model.global_token", "decoders.rgb.mask_token"} <= free
    assert "decoders.norm_rgb.modality.saliency" in free and "model.project.rgb.weight" not in free
    rates = []
    for _ in range(1000):
        rates.append(decayed["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) == rates[200] == pytest.approx(2e-4)
    assert rates[0] == 0 and rates[100] == pytest.approx(1e-4) == rates[600]


def things(count: int, seed: int) -> dict[str, np.ndarray]:
    """Grey frames of four patches, one of them bright, and maps that mark it."""
    image = np.full((count, 16, 16, 3), 90, np.uint8)
    saliency = np.zeros((count, 16, 16), np.uint8)
    places = 8 * np.random.default_rng(seed).integers(0, 2, (count, 2))
    for n, (row, column) in enumerate(places):
        image[n, row : row + 8, column : column + 8] = (250, 200, 40)
        saliency[n, row : row + 8, column : column + 8] = 128
    return {"image": image, "saliency": saliency}


def fit(
    folder: Path,
    config: Config,
    *,
    progress: Callable[[int, int], None] | None = None,
    every: int | None = None,
) -> tuple[Pretraining, np.ndarray]:
    training = Pretraining(config, (3, 16, 16))
    losses = trainer.fit(
        training,
        things(48, 0),
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
        folder=folder,
        progress=progress,
        checkpoint_every=every,
    )
    return training, losses


def test_stopped_and_resumed_ends_in_the_same_bytes(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int, steps: int) -> None:
        if done == 5:
            raise StoppedError

    config = replace(SMALL, epochs=1, batch_size=6, depth=1, decoder_depth=1)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    whole, losses = fit(tmp_path / "a", config)
    with pytest.raises(StoppedError):
        fit(tmp_path / "b", config, progress=stop, every=2)
    resumed, again = fit(tmp_path / "b", config, every=2)
    assert np.array_equal(losses, again)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.slow
def test_it_learns_one_modality_from_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On new frames, hidden patches of the map and a frame from its map alone are both
    reconstructed better than by the mean.
    """
    monkeypatch.setattr(crops, "SCALE", (1.0, 1.0))
    monkeypatch.setattr(crops, "RATIO", (1.0, 1.0))
    config = Config(
        norm_rgb=False, dim=32, depth=1, heads=2, decoder_dim=32, decoder_depth=1, decoder_heads=2,
        batch_size=24, epochs=200, warmup_epochs=5, base_lr=0.06, mask=0.5,
    )  # fmt: skip
    training, losses = fit(tmp_path, config)
    assert losses[-20:].mean() < 0.25 * losses[:20].mean()
    batch = {key: torch.from_numpy(rows) for key, rows in things(256, 1).items()}
    patches = training.patches(training._images(batch))

    def errors(name: str, keep: np.ndarray) -> tuple[float, float]:
        """Errors of the reconstruction of the hidden patches, and of their mean."""
        hidden = budgets.hidden(keep, 2, 4)
        with torch.no_grad():
            rows, reconstruction = training._reconstruct(patches, keep, hidden)[name]
        target = patches[name].flatten(0, 1)[rows]
        mean = patches[name].mean(0).repeat(256, 1)[rows]
        return F.mse_loss(reconstruction, target).item(), F.mse_loss(mean, target).item()

    ours, trivial = errors("saliency", budgets.sample(np.random.default_rng(0), 256, 2, 4, 4))
    assert ours < 0.93 * trivial
    ours, trivial = errors("rgb", np.tile(np.arange(4, 8), (256, 1)))
    assert ours < 0.5 * trivial, (ours, trivial)


# Features


def encoder(features: Features | None = None, **changes: Any) -> multimae.Encoder:
    training = method(**changes)
    source = centre.Saliency(centre.Config(), SHAPE)
    return (
        training.encoder(features, source)
        if training.config.needs_saliency
        else training.encoder(features)
    )


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("modalities", ["rgb+saliency", "rgb"])
def test_features_are_all_tokens_or_their_pool(modalities: str, looks: bool) -> None:
    image = batch_of(3)["image"].permute(0, 3, 1, 2).contiguous()
    whole, mean, last = (
        encoder(Features(pool=pool, use_saliency=looks), modalities=modalities)
        for pool in ("none", "mean", "global")
    )
    tokens = whole(image)
    both = looks and modalities == "rgb+saliency"
    count = 33 if both else 17
    assert whole.max_tokens == count and mean.max_tokens == last.max_tokens == 1
    assert tokens["pos"][2].tolist() == list(range(count)) and tokens["mask"].all()
    torch.testing.assert_close(mean(image)["x"][:, 0], tokens["x"].mean(1))
    assert torch.equal(last(image)["x"][:, 0], tokens["x"][:, -1])
    maps = centre.Saliency(centre.Config(), SHAPE)(image)
    training = method(modalities=modalities)
    patches = patches_of(training, torch.cat([image / 255, maps], 1))
    visible = {name: rows for name, rows in patches.items() if both or name == "rgb"}
    with torch.no_grad():
        expected = encoded(training, visible, 1, list(range(count - 1)))
    torch.testing.assert_close(tokens["x"][1], expected, atol=1e-5, rtol=1e-5)


OTHER: Any = "other"  # than the known ones


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(modalities=OTHER), "modalities: 'other'"),
        (lambda: Config(mask=1.0), "mask: 1.0"),
        (lambda: Config(dim=10), "dim: 10"),
        (lambda: Config(decoder_dim=12, decoder_heads=5), "decoder_dim: 12"),
        (lambda: Config(base_lr=-1.0), "base_lr: -1.0"),
        (lambda: Config(beta2=1.0), "beta2: 1.0"),
        (lambda: Features(pool=OTHER), "pool: 'other'"),
        (lambda: Pretraining(Config(patch=7), SHAPE), "patch: 7 does not divide"),
        (lambda: Pretraining(Config(), (1, 32, 32)), "model: multimae takes RGB"),
        (lambda: Pretraining(SMALL, SHAPE).encoder(), "saliency: is None"),
    ],
)
def test_impossible_settings_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


@pytest.mark.parametrize(("modalities", "pictures"), [("rgb+saliency", 14), ("rgb", 7)])
def test_panels_are_images_and_reproducible(modalities: str, pictures: int) -> None:
    training = method(modalities=modalities)
    one = {key: value[:1] for key, value in batch_of().items() if key in ("image", "saliency")}
    first, second = training.panels(one), training.panels(one)
    assert len(first) == pictures
    for caption, picture in first.items():
        assert picture.dtype == np.uint8 and picture.shape == (32, 32, 3)
        assert np.array_equal(picture, second[caption])
    assert np.array_equal(first["rgb"], one["image"][0].numpy())
    visible = first[next(caption for caption in first if caption.endswith("visible"))]
    unchanged = (visible == one["image"][0].numpy()).all(-1)
    grey = (visible == multimae.MASKED_GREY).all(-1)
    assert (unchanged | grey).all() and unchanged.sum() == 64 * (7 if pictures == 14 else 4)
    again = first["rgb 1: reconstruction"][unchanged]
    assert np.array_equal(again, one["image"][0].numpy()[unchanged])
