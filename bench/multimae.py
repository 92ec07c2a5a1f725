"""One MultiMAE training step against a plain loop over timm's own blocks with eager attention.

The baseline is as in textbooks: convolutions embed every patch of both modalities, the visible ones
are gathered, each decoder completes the sequence with mask tokens, puts it back in order, adds
positions, cuts out its own queries, and runs all its patches through every layer; attention is
softmax(QK')V in full, losses are averaged over masks, and AdamW runs parameter by parameter.
Weights, frames, masks and loss are the same; the first losses are compared, so both do the same
work. Neither crops. Matrix products of the same sizes are almost all of a step, so leaving out what
is not needed saves less than a tenth. The rest is the speed of `pretrain/modules/linear.py` against
torch's own products, in bfloat16 where training is.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timm.layers.attention import Attention
from torch import Tensor, nn

from pretrain.encoders.multimae import Config, Pretraining
from pretrain.modules.linear import fast_linear
from pretrain.modules.multimodal_vit import MultiViT
from pretrain.modules.vit import normalise
from pretrain.transforms import token_masking as budgets

SHAPE = (3, 64, 64)
ROUNDS = 5
BATCH = 64


def run() -> dict[str, object]:
    """Medians of milliseconds a step and of the rounds' ratios: CPU time on one thread, as the
    stages run, and wall time on two threads.
    """
    threads = torch.get_num_threads()
    figures: dict[str, object] = {
        "what": "MultiMAE step, batch 64, against timm's blocks with eager attention",
        "rounds": ROUNDS,
    }
    ours, plain = our_step(), _plain()
    first = ours(), plain()  # also the warm-up
    torch.testing.assert_close(*first, atol=1e-3, rtol=1e-3)  # ours may be in bfloat16
    for count, prefix, clock in ((1, "", time.process_time), (2, "two_", time.perf_counter)):
        torch.set_num_threads(count)
        rounds = [(_milliseconds(ours, clock), _milliseconds(plain, clock)) for _ in range(ROUNDS)]
        figures[f"{prefix}ours_ms"] = statistics.median(own for own, _ in rounds)
        figures[f"{prefix}plain_ms"] = statistics.median(other for _, other in rounds)
        figures[f"{prefix}ratio"] = statistics.median(other / own for own, other in rounds)
    torch.set_num_threads(threads)
    return figures


def _milliseconds(step: Callable[[], Tensor], clock: Callable[[], float]) -> float:
    start = clock()
    step()
    return 1000 * (clock() - start)


def _inputs() -> tuple[Tensor, budgets.Tokens]:
    """Frames and maps (B, 4, H, W) in [0, 1], and the visible tokens (B, 32)."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.random((BATCH, 4, *SHAPE[1:]), np.float32))
    return images, budgets.sample(rng, BATCH, 2, 64, 32)


def our_step() -> Callable[[], Tensor]:
    """The project's training step without the crops, returning its loss."""
    method, (images, keep) = Pretraining(Config(), SHAPE), _inputs()
    optimizer, _ = method.optimizer(10)

    def step() -> Tensor:
        with fast_linear(images.device, half=True):  # as `trainer.fit` does
            loss = method.loss_of(images, keep)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.detach()

    return step


def _convolution(model: MultiViT, name: str) -> nn.Conv2d:
    """The layer `project` as a convolution whose stride is its kernel's size."""
    linear: Any = model.project[name]
    channels = model.pixels[name] // 64
    convolution = nn.Conv2d(channels, 256, 8, 8)
    kernel = linear.weight.detach().view(-1, 8, 8, channels).permute(0, 3, 1, 2)
    convolution.load_state_dict({"weight": kernel, "bias": linear.bias.detach()})
    return convolution


def _plain() -> Callable[[], Tensor]:
    method, (images, keep) = Pretraining(Config(), SHAPE), _inputs()
    model = method.model
    for module in method.modules():
        if isinstance(module, Attention):
            setattr(module, "fused_attn", False)  # noqa: B010  # declared Final for TorchScript
    embed = {name: _convolution(model, name) for name in model.pixels}
    rest = [p for name, p in method.named_parameters() if not name.startswith("model.project")]
    optimizer = torch.optim.AdamW(
        [*(p for conv in embed.values() for p in conv.parameters()), *rest],
        lr=2e-4,
        betas=(0.9, 0.95),
    )
    visible = torch.from_numpy(keep)
    hidden = torch.ones(BATCH, 128, dtype=torch.bool).scatter(1, visible, False)
    order = torch.cat([visible, hidden.nonzero()[:, 1].view(BATCH, -1)], dim=1)
    restore = order.argsort(1)

    def take(x: Tensor, index: Tensor) -> Tensor:
        return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))

    def attend(d: Any, query: Tensor, context: Tensor) -> Tensor:
        q = d.query(query).view(BATCH, -1, 4, 64).transpose(1, 2)
        k, v = d.key_value(context).view(BATCH, -1, 2, 4, 64).permute(2, 0, 3, 1, 4)
        weight = (q @ k.transpose(-2, -1) / 8).softmax(-1)
        x: Tensor = d.proj((weight @ v).transpose(1, 2).flatten(2))
        return x

    def decode(d: Any, latent: Tensor, own: int) -> Tensor:
        rows = d.embed_latent(latent)
        masks = d.mask_token.repeat(BATCH, 96, 1)
        vectors = [d.positions + vector for vector in d.modality.values()]
        full = take(torch.cat([rows[:, :-1], masks], 1), restore) + torch.cat(vectors)
        context = torch.cat([take(full, visible), rows[:, -1:]], dim=1)
        query = full[:, 64 * own : 64 * (own + 1)]
        x = attend(d, d.norm_query(query), d.norm_context(context))
        x = x + d.mlp(d.norm_mlp(x))
        for block in d.blocks:
            x = block(x)
        reconstruction: Tensor = d.predict(x)
        return reconstruction

    def mean(error: Tensor, own: int) -> Tensor:
        mask = hidden[:, 64 * own : 64 * (own + 1)]
        return ((error.mean(-1) * mask).sum(1) / mask.sum(1)).nanmean()

    def step() -> Tensor:
        patches = method.patches(images)
        centre, scale = (model.get_buffer(f"rgb_{k}")[:3, None, None] for k in ("mean", "std"))
        planes = {"rgb": (images[:, :3] - centre) / scale, "saliency": images[:, 3:]}
        tokens = [
            embed[k](x).flatten(2).transpose(1, 2) + model.positions for k, x in planes.items()
        ]
        x = torch.cat(
            [take(torch.cat(tokens, 1), visible), model.global_token.repeat(BATCH, 1, 1)], 1
        )
        for block in model.blocks:
            x = block(x)
        rgb, saliency = patches["rgb"], patches["saliency"]
        reconstruction = {k: decode(d, x, int(k == "saliency")) for k, d in method.decoders.items()}
        weighted = (reconstruction["saliency"] - saliency).square() / (1.05 - saliency)
        loss = mean((reconstruction["rgb"] - rgb).square(), 0) + mean(weighted, 1)
        loss = loss + mean((reconstruction["norm_rgb"] - normalise(rgb)).square(), 0)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        done: Tensor = loss.detach()
        return done

    return step


if __name__ == "__main__":
    for key, value in run().items():
        print(key, value)
