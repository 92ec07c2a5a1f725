"""The error map of real frames against the released procedure, which knows no shortcut.

The plain one takes one frame at a time in three passes (4 corner, 40 edge and 100 inside centres at
patch 8), embeds every neighbour again and runs the whole decoder on all tokens, of which it uses
one a centre. Ours is timed twice: without a cache, and with a cache of the game's earlier frames.
Same weights and frames; the maps are compared. How many centres are new differs much from frame to
frame, so the cached one is timed on all frames of a stretch, the others on some of them between.
Ours also multiplies by `pretrain/modules/linear.py`, torch's other library; what is left of the
ratio where the plain one does too (`shortcuts_ratio`) is what the shortcuts alone save.

Multiply-accumulates a centre at the defaults: 107 million by the definition, 63 in ours. A table of
what the first layer's mask tokens see of one another would leave 58 (tried: a tenth to a sixth less
time in passes of 16, none in passes of 8). Fewer by more than 1.8 times is not to be had exactly
without a cache: in the first layer each mask token sees the neighbours, and is another from
there on.

The targets with the cache are for 9,600 earlier frames, minutes a game: `python -m
bench.error_map 9600`, whose figures `make bench` shows when it was run. `make bench` itself
remembers few frames.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bench import kept
from datasets import envs
from pipeline.runtime.progress import Progress
from pretrain.encoders.mae import Config, network
from pretrain.modules.linear import fast_linear
from pretrain.modules.vit import MaskedViT, normalise
from pretrain.spirl.error_cache import ErrorCache
from pretrain.spirl.error_map import errors_at, neighbourhoods

EARLIER, TIMED, PLAIN = 100, 60, 4  # frames: seen before; then timed; the others on every fourth
WARM = 9600  # frames seen before that TARGETS are for
FORGETFUL_TARGET = 2.0
TARGETS = {"Frostbite": 14.0, "MsPacman": 9.0, "Seaquest": 9.0, "BattleZone": 3.0}  # remembering


def run(earlier: int = EARLIER) -> dict[str, object]:
    """Each game's figures under its name; see `measure`."""
    figures: dict[str, object] = {
        "what": "error map, patch 8, one thread, against three passes a frame",
        "remembered_frames": earlier,
        "target_ratio": FORGETFUL_TARGET,
    }
    for game, target in TARGETS.items():
        for key, value in measure(f"atari/{game}", earlier).items():
            figures[f"{game}_{key}"] = value
        figures[f"{game}_target_remembering_ratio"] = target
    return figures


@torch.no_grad()
def measure(env: str, earlier: int) -> dict[str, float]:
    """Milliseconds a frame of one thread's time: medians and the median of the frames' ratios
    (plain / ours) without memory; with it the mean, which plain's median is divided by.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = network(Config(), envs.image_shape(env))
    model.initialise(0)
    frames = torch.split(random_frames(env, earlier + TIMED), 1)
    plain, without, memory = plain_map(model), forgetful(model), ErrorCache(model)
    progress = Progress(f"error maps of {env}", earlier, "frames")
    for frame in frames[:earlier]:
        memory(frame)
        progress()
    progress.finish()
    before = _hit_rate(memory)
    plain(frames[0])  # the warm-up
    forgetting: list[tuple[float, float, float]] = []
    remembering = []
    for number, frame in enumerate(frames[earlier:]):
        remembered, milliseconds = _timed(memory, frame)
        remembering.append(milliseconds)
        if number % PLAIN == 0:
            expected, other = _timed(plain, frame)
            computed, own = _timed(without, frame)
            with fast_linear(frame.device):
                forgetting.append((other, own, _timed(plain, frame)[1]))
            torch.testing.assert_close(computed, expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(remembered, expected, atol=1e-5, rtol=0)
    torch.set_num_threads(threads)
    plain_ms = statistics.median(other for other, _, _ in forgetting)
    return {
        "plain_ms": plain_ms,
        "ours_ms": statistics.median(own for _, own, _ in forgetting),
        "ours_ratio": statistics.median(other / own for other, own, _ in forgetting),
        "shortcuts_ratio": statistics.median(faster / own for _, own, faster in forgetting),
        "remembering_ms": statistics.mean(remembering),
        "remembering_ratio": plain_ms / statistics.mean(remembering),
        "remembered_bytes": memory.nbytes,
        "hit_rate_earlier": before,
        "hit_rate": _hit_rate(memory),
    }


def _hit_rate(memory: ErrorCache) -> float:
    """The share of cache hits among the centres since the last call."""
    rate = memory.hits / (memory.hits + memory.misses)
    memory.hits = memory.misses = 0
    return rate


def _timed(way: Callable[[Tensor], Tensor], frame: Tensor) -> tuple[Tensor, float]:
    begun = time.thread_time()
    errors = way(frame)
    return errors, 1000 * (time.thread_time() - begun)


def random_frames(env: str, count: int) -> Tensor:
    """A random policy's frames, (count, 3, H, W) uint8."""
    game = envs.single(env, seed=0, index=0)
    game.action_space.seed(0)
    frames = [game.reset()[0]]
    while len(frames) < count:
        image, _, terminated, truncated, _ = game.step(game.action_space.sample())
        frames.append(game.reset()[0] if terminated or truncated else image)
    game.close()
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def forgetful(model: MaskedViT) -> Callable[[Tensor], Tensor]:
    """The project's map of one frame, with nothing remembered."""
    near, centres = neighbourhoods(*model.grid), torch.arange(model.patches)
    return lambda frame: errors_at(model, model.to_patches(frame), centres, near)[None]


def plain_map(model: MaskedViT) -> Callable[[Tensor], Tensor]:
    """The map of one frame by its definition, as the released code makes it: corners, edges and
    inside, each kind's neighbours gathered and reconstructed in one pass through the whole decoder.
    """
    index, real, _ = neighbourhoods(*model.grid)
    kinds = [(real.sum(1) == count).nonzero()[:, 0] for count in (3, 5, 8)]
    inputs = [index[kind][real[kind]].view(len(kind), -1) for kind in kinds]

    def error_map(frame: Tensor) -> Tensor:
        patches = model.to_patches(frame)
        target, errors = normalise(patches)[0], torch.empty(1, model.patches)
        for centres, neighbours in zip(kinds, inputs, strict=True):
            reconstruction = model(patches.expand(len(centres), -1, -1), neighbours)
            own = reconstruction[torch.arange(len(centres)), centres]
            errors[0, centres] = (own - target[centres]).square().mean(-1)
        return errors

    return error_map


def main() -> None:
    """The command line."""
    earlier = int(sys.argv[1]) if len(sys.argv) > 1 else EARLIER
    figures = run(earlier)
    for key, value in figures.items():
        print(key, value)
    kept.keep(kept.OURS, {f"error_map_{earlier}": figures})


if __name__ == "__main__":
    main()
