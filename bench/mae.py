"""One MAE training step against a plain loop over timm's own blocks with eager attention.

The baseline is as in textbooks: a convolution embeds every patch, the visible ones are gathered,
the sequence is completed with mask tokens and put back in order, attention is softmax(QK')V in
full, and AdamW runs parameter by parameter. Weights, frames, masks and loss are the same; the first
losses are compared, so both do the same work. Ours multiplies in bfloat16 where training does
(`pretrain/modules/linear.py`); `bench.half` measures the effect of that.
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
from torch.nn import functional as F

from pretrain.encoders.mae import Config, network
from pretrain.modules.linear import fast_linear
from pretrain.modules.vit import MaskedViT, normalise, patchify
from pretrain.schedule import adamw

SHAPE = (3, 96, 96)
ROUNDS = 5
BATCH = 64


def run() -> dict[str, object]:
    """Median milliseconds of processor time a step on one thread, and of the rounds' ratios."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    figures: dict[str, object] = {
        "what": "MAE step, batch 64, one thread, against timm's blocks with eager attention",
        "rounds": ROUNDS,
    }
    for patch in (8, 16):
        ours, plain = our_step(patch), _plain(patch)
        first = ours(), plain()  # also the warm-up
        torch.testing.assert_close(*first, atol=1e-3, rtol=1e-3)  # ours may be in bfloat16
        rounds = [(_milliseconds(ours), _milliseconds(plain)) for _ in range(ROUNDS)]
        figures[f"patch_{patch}_ours_ms"] = statistics.median(own for own, _ in rounds)
        figures[f"patch_{patch}_plain_ms"] = statistics.median(other for _, other in rounds)
        figures[f"patch_{patch}_ratio"] = statistics.median(other / own for own, other in rounds)
    torch.set_num_threads(threads)
    return figures


def _milliseconds(step: Callable[[], Tensor]) -> float:
    start = time.process_time()
    step()
    return 1000 * (time.process_time() - start)


def inputs(patch: int) -> tuple[Tensor, Tensor]:
    """Frames as they come from disk (B, H, W, C) uint8, and the visible patches (B, K)."""
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 256, (BATCH, *SHAPE[1:], 3), np.uint8))
    patches = (SHAPE[1] // patch) ** 2
    visible = torch.from_numpy(rng.random((BATCH, patches))).argsort(1)[:, : patches // 4]
    return frames, visible


def _network(patch: int) -> MaskedViT:
    model = network(Config(patch=patch), SHAPE)
    model.initialise(0)
    return model


def our_step(patch: int) -> Callable[[], Tensor]:
    """The project's training step, returning its loss."""
    model, (frames, visible) = _network(patch), inputs(patch)
    optimizer = adamw(model, rate=2.5e-4, betas=(0.9, 0.95), weight_decay=0.05)

    def step() -> Tensor:
        patches = model.to_patches(frames.permute(0, 3, 1, 2))
        with fast_linear(frames.device, half=True):  # as `trainer.fit` does
            loss = F.mse_loss(model(patches, visible), normalise(patches))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.detach()

    return step


def _plain(patch: int) -> Callable[[], Tensor]:
    model, (frames, visible) = _network(patch), inputs(patch)
    for module in model.modules():
        if isinstance(module, Attention):
            setattr(module, "fused_attn", False)  # noqa: B010  # declared Final for TorchScript
    embed = nn.Conv2d(3, model.cls.shape[-1], patch, patch)
    weight = model.embed_patch.weight.detach().view(-1, patch, patch, 3).permute(0, 3, 1, 2)
    embed.weight.data.copy_(weight)
    embed.bias.data.zero_()  # type: ignore[union-attr]  # a Conv2d's bias may be None, not here
    rest = [p for name, p in model.named_parameters() if not name.startswith("embed_patch")]
    optimizer = torch.optim.AdamW([*embed.parameters(), *rest], lr=2.5e-4, betas=(0.9, 0.95))
    hidden = torch.ones(BATCH, model.patches, dtype=torch.bool).scatter(1, visible, False)
    order = torch.cat([visible, hidden.nonzero()[:, 1].view(BATCH, -1)], dim=1)
    restore = order.argsort(1)

    def take(x: Tensor, index: Tensor) -> Tensor:
        return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))

    def run_blocks(blocks: Any, x: Tensor) -> Tensor:
        for block in blocks:
            x = block(x)
        return x

    def step() -> Tensor:
        image = frames.permute(0, 3, 1, 2).float() / 255
        tokens = embed(image).flatten(2).transpose(1, 2) + model.positions
        x = torch.cat([model.cls.repeat(BATCH, 1, 1), take(tokens, visible)], dim=1)
        x = model.embed_latent(model.norm(run_blocks(model.blocks, x)))
        masks = model.mask_token.repeat(BATCH, model.patches - visible.shape[1], 1)
        full = take(torch.cat([x[:, 1:], masks], dim=1), restore)
        x = torch.cat([x[:, :1], full], dim=1) + model.decoder_positions
        x = model.predict(model.decoder_norm(run_blocks(model.decoder_blocks, x)))[:, 1:]
        loss = (x - normalise(patchify(image, patch))).square().mean(-1).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        done: Tensor = loss.detach()
        return done

    return step


if __name__ == "__main__":
    for key, value in run().items():
        print(key, value)
