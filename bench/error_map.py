"""The error map of real frames against the released procedure, which has no shortcuts.

The baseline takes one frame at a time in three passes (4 corner, 40 edge and 100 inside centres at
patch 8), embeds every neighbour again and runs the whole decoder on all tokens, of which it uses
one a centre. Ours is timed twice: without a cache, and with a cache of the game's earlier frames.
Weights and frames are the same, and the maps are compared. The number of new centres varies much
from frame to frame, so the cached map is timed on consecutive frames, and the others on every
fourth of them. Ours also multiplies by `pretrain/modules/linear.py`, which calls another library of
torch's. `shortcuts_ratio` is the ratio if the baseline does so too: the effect of the shortcuts.

Multiply-accumulates a centre at the defaults: 107 million by the definition, 63 million in ours. A
table of the first layer's attention among mask tokens would leave 58 million (tried: a tenth to a
sixth less time in passes of 16, none in passes of 8). An exact map without a cache cannot save more
than a factor of 1.8: in the first layer each mask token attends to its neighbours, and is different
for every centre from there on.

The targets with the cache are for 9,600 earlier frames, which take minutes a game: `python -m
bench.error_map 9600`. `make bench` shows its figures if it was run, and itself caches few frames.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bench import results
from datasets import envs
from pipeline.runtime.progress import Progress
from pretrain.encoders.mae import Config, network
from pretrain.modules.linear import fast_linear
from pretrain.modules.vit import MaskedViT, normalise
from pretrain.spirl.error_cache import ErrorCache
from pretrain.spirl.error_map import errors_at, neighbourhoods

EARLIER, TIMED, PLAIN = 100, 60, 4  # frames: cached first; then timed; every fourth uncached too
WARM = 9600  # cached frames that TARGETS are for
UNCACHED_TARGET = 2.0
TARGETS = {"Frostbite": 14.0, "MsPacman": 9.0, "Seaquest": 9.0, "BattleZone": 3.0}  # with the cache


def run(earlier: int = EARLIER) -> dict[str, object]:
    """Each game's figures under its name; see `measure`."""
    figures: dict[str, object] = {
        "what": "error map, patch 8, one thread, against three passes a frame",
        "remembered_frames": earlier,
        "target_ratio": UNCACHED_TARGET,
    }
    for game, target in TARGETS.items():
        for key, value in measure(f"atari/{game}", earlier).items():
            figures[f"{game}_{key}"] = value
        figures[f"{game}_target_remembering_ratio"] = target
    return figures


@torch.no_grad()
def measure(env: str, earlier: int) -> dict[str, float]:
    """Milliseconds a frame on one thread. Without the cache: medians, and the median of the frames'
    ratios (plain / ours). With it: the mean, and plain's median divided by it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = network(Config(), envs.image_shape(env))
    model.initialise(0)
    frames = torch.split(random_frames(env, earlier + TIMED), 1)
    plain, uncached, cache = plain_map(model), uncached_map(model), ErrorCache(model)
    progress = Progress(f"error maps of {env}", earlier, "frames")
    for frame in frames[:earlier]:
        cache(frame)
        progress()
    progress.finish()
    before = _hit_rate(cache)
    plain(frames[0])  # the warm-up
    uncached_times: list[tuple[float, float, float]] = []
    cached_times = []
    for number, frame in enumerate(frames[earlier:]):
        cached, milliseconds = _timed(cache, frame)
        cached_times.append(milliseconds)
        if number % PLAIN == 0:
            expected, other = _timed(plain, frame)
            computed, own = _timed(uncached, frame)
            with fast_linear(frame.device):
                uncached_times.append((other, own, _timed(plain, frame)[1]))
            torch.testing.assert_close(computed, expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(cached, expected, atol=1e-5, rtol=0)
    torch.set_num_threads(threads)
    plain_ms = statistics.median(other for other, _, _ in uncached_times)
    return {
        "plain_ms": plain_ms,
        "ours_ms": statistics.median(own for _, own, _ in uncached_times),
        "ours_ratio": statistics.median(other / own for other, own, _ in uncached_times),
        "shortcuts_ratio": statistics.median(faster / own for _, own, faster in uncached_times),
        "remembering_ms": statistics.mean(cached_times),
        "remembering_ratio": plain_ms / statistics.mean(cached_times),
        "remembered_bytes": cache.nbytes,
        "hit_rate_earlier": before,
        "hit_rate": _hit_rate(cache),
    }


def _hit_rate(cache: ErrorCache) -> float:
    """The share of cache hits among the centres since the last call."""
    rate = cache.hits / (cache.hits + cache.misses)
    cache.hits = cache.misses = 0
    return rate


def _timed(way: Callable[[Tensor], Tensor], frame: Tensor) -> tuple[Tensor, float]:
    start = time.thread_time()
    errors = way(frame)
    return errors, 1000 * (time.thread_time() - start)


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


def uncached_map(model: MaskedViT) -> Callable[[Tensor], Tensor]:
    """The project's map of one frame, without a cache."""
    near, centres = neighbourhoods(*model.grid), torch.arange(model.patches)
    return lambda frame: errors_at(model, model.to_patches(frame), centres, near)[None]


def plain_map(model: MaskedViT) -> Callable[[Tensor], Tensor]:
    """The map of one frame by its definition, as in the released code: three passes through the
    whole decoder, for corners, edges and inside, each on the neighbours of all its centres.
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
    results.write(results.OURS, {f"error_map_{earlier}": figures})


if __name__ == "__main__":
    main()
