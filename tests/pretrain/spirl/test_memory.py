"""Cached errors: the same bits as computed ones, within bounds, never those of other weights."""

from __future__ import annotations

import copy
import inspect
import tracemalloc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pretrain.encoders import mae
from pretrain.modules.vit import MaskedViT
from pretrain.spirl.error_cache import ErrorCache
from pretrain.spirl.error_map import error_map

SHAPE = (3, 32, 40)
PATCHES = 20
SMALL = mae.Config(patch=8, dim=16, depth=2, heads=2, decoder_dim=16, decoder_heads=2)
FRAME = PATCHES * (192 + 144 + 40 + 144)  # bytes: every patch and every error new


def build(seed: int = 0) -> MaskedViT:
    model = mae.network(SMALL, SHAPE)
    model.initialise(seed)
    return model.requires_grad_(False)


def game(count: int, seed: int = 0) -> Tensor:
    """Frames that share most of their patches: a few of ten tiles change from each to the next."""
    generator = torch.Generator().manual_seed(seed)
    tiles = torch.randint(0, 256, (10, 3, 8, 8), dtype=torch.uint8, generator=generator)
    frames = torch.zeros(count, *SHAPE, dtype=torch.uint8)
    for t in range(count):
        frames[t] = frames[t - 1]
        for _ in range(2):
            row, column, tile = (
                int(torch.randint(0, n, (1,), generator=generator)) for n in (4, 5, 10)
            )
            frames[t, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = tiles[tile]
    return frames


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


def test_equals_the_error_map() -> None:
    model, frames = build(), game(12)
    memory = ErrorCache(model)
    for _ in range(2):
        torch.testing.assert_close(memory(frames), error_map(model, frames), atol=1e-5, rtol=0)
    assert memory(frames[:0]).shape == (0, PATCHES)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_bits_in_any_order_batch_and_state(seed: int) -> None:
    model, frames = build(seed), game(15, seed)
    alone = torch.cat([ErrorCache(model)(frame[None]) for frame in frames])  # each one cold
    warm, tight = ErrorCache(model), ErrorCache(model, limit=2 * FRAME)
    assert same_bits(warm(frames), alone)
    assert same_bits(warm(frames), alone)
    for memory in (warm, tight, ErrorCache(model)):
        for start in range(2):
            order = torch.randperm(15, generator=torch.Generator().manual_seed(100 * seed + start))
            for part in torch.split(order, 4):
                assert same_bits(memory(frames[part]), alone[part])
    assert warm.hits > warm.misses and tight.misses > warm.misses  # the tight one did forget


def test_only_new_patches_are_computed() -> None:
    memory, frame = ErrorCache(build()), game(20)[-1:]
    memory(frame)
    assert (memory.hits, memory.misses) == (0, PATCHES)
    memory(frame)
    assert (memory.hits, memory.misses) == (PATCHES, PATCHES)
    changed = frame.clone()
    changed[0, 0, 8, 8] ^= 1  # a bit of the patch in row 1, column 1: nine centres
    memory(changed)
    assert (memory.hits, memory.misses) == (2 * PATCHES - 9, PATCHES + 9)
    memory(frame)
    assert memory.misses == PATCHES + 9


def test_a_miss_in_several_frames_of_a_batch_is_computed_once() -> None:
    memory, frame = ErrorCache(build()), game(20)[-1:]
    changed = frame.clone()
    changed[0, 0, 8, 8] ^= 1
    memory(torch.cat([frame, changed, frame, changed]))
    assert (memory.hits, memory.misses) == (3 * PATCHES - 9, PATCHES + 9)


def test_the_same_patches_elsewhere_are_not_a_hit() -> None:
    model = build()
    memory = ErrorCache(model)
    plain = torch.full((1, *SHAPE), 7, dtype=torch.uint8)
    plain[..., 0] = 9  # patches that are not flat
    memory(plain)
    assert memory.misses == PATCHES
    torch.testing.assert_close(memory(plain), error_map(model, plain), atol=1e-5, rtol=0)


def _allocated() -> int:
    """Bytes that were allocated in error_cache.py and are not freed, according to Python."""
    own = tracemalloc.Filter(True, str(inspect.getsourcefile(ErrorCache)))
    traces = tracemalloc.take_snapshot().filter_traces([own])
    return sum(line.size for line in traces.statistics("filename"))


def test_never_exceeds_its_bytes() -> None:
    generator = torch.Generator().manual_seed(0)
    limit = 20 * FRAME
    memory = ErrorCache(build(), limit=limit)
    memory(game(1))
    most = traced = 0
    tracemalloc.start()
    for _ in range(30):
        memory(torch.randint(0, 256, (1, *SHAPE), dtype=torch.uint8, generator=generator))
        assert memory.nbytes <= limit
        most = max(most, memory.nbytes)
        traced = max(traced, _allocated())
    tracemalloc.stop()
    assert most > 0.9 * limit and memory.misses == 31 * PATCHES
    assert most / 2 < traced < limit  # what Python says it holds


def test_the_least_recently_used_errors_are_dropped() -> None:
    generator = torch.Generator().manual_seed(0)
    memory = ErrorCache(build(), limit=6 * FRAME)
    used, unused = game(2, seed=1)[:1], game(3, seed=2)[2:]
    memory(torch.cat([used, unused]))
    for _ in range(10):
        memory(torch.randint(0, 256, (1, *SHAPE), dtype=torch.uint8, generator=generator))
        before = memory.misses
        memory(used)
        assert memory.misses == before
    memory(unused)
    assert memory.misses > before


def test_a_limit_below_two_frames_is_refused() -> None:
    with pytest.raises(ValueError, match=f"^limit: {2 * FRAME - 1} bytes, must be at least"):
        ErrorCache(build(), limit=2 * FRAME - 1)


def load(model: MaskedViT) -> None:
    model.load_state_dict(build(1).state_dict())


def assign(model: MaskedViT) -> None:
    model.load_state_dict(build(1).state_dict(), assign=True)


def swap(model: MaskedViT) -> None:
    for own, other in zip(model.parameters(), build(1).parameters(), strict=True):
        own.data = other.data


def step(model: MaskedViT) -> None:
    model.mask_token.add_(1)


@pytest.mark.parametrize("change", [load, assign, swap, step])
def test_other_weights_have_no_hits(change: Callable[[MaskedViT], None]) -> None:
    model, frames = build(), game(5)
    memory = ErrorCache(model)
    stale = memory(frames)
    for _ in range(3):
        change(model)
        fresh = ErrorCache(model)(frames)
        assert not same_bits(stale, fresh) and same_bits(memory(frames), fresh)


def test_each_encoder_has_its_own_cache() -> None:
    frames = game(20)
    encoder = mae.Pretraining(SMALL, SHAPE).encoder()
    cold = encoder(frames)
    assert encoder.cache.hits > 0
    misses = encoder.cache.misses
    assert same_bits(encoder.errors(frames), encoder.cache(frames))
    warm, twin = encoder(frames), copy.deepcopy(encoder)
    assert encoder.cache.misses == misses
    assert all(torch.equal(cold[key], warm[key]) for key in cold)
    twin.model.load_state_dict(build(3).state_dict())
    assert twin.cache is not encoder.cache
    assert not same_bits(twin.errors(frames), encoder.errors(frames))
    assert encoder.cache.misses == misses and "cache" not in str(encoder.state_dict().keys())


def test_an_encoder_of_inference_tensors_works_too() -> None:
    with torch.inference_mode():
        encoder = mae.Pretraining(SMALL, SHAPE).encoder()
        assert encoder(game(2))["x"].shape == (2, encoder.max_tokens, 16)


def test_maps_with_nan_are_not_cached() -> None:
    """An encoder whose weights became NaN does not fill the cache with NaN."""
    memory, frames = ErrorCache(build()), game(5)
    memory.model.mask_token.data[0, 0, 0] = float("nan")  # no version counter shows it
    assert not memory(frames).isfinite().all() and memory.nbytes < 5 * memory._frame_bytes
    memory.model.mask_token.data[0, 0, 0] = build().mask_token[0, 0, 0]
    assert same_bits(memory(frames), ErrorCache(build())(frames))
