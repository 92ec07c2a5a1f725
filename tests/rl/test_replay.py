"""Replay against a plain list of episodes, its frequencies, and its files."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.errors import FoveaError
from pretrain.encoder import Obs
from rl.agent import Batch
from rl.replay import Replay

STACK, STEPS, GAMMA = 3, 4, 0.9


def frame(number: int) -> Obs:
    """A frame whose pixels encode its number."""
    return {
        "x": torch.full((1, 2, 3), float(number)),
        "mask": torch.tensor([[True, number % 2 == 0]]),
        "pos": torch.tensor([[number % 7, 1]]),
    }


@dataclass
class Step:
    frame: int
    action: int
    reward: float
    terminated: bool
    truncated: bool


@dataclass
class Model:
    """The added steps, as a list of episodes."""

    episodes: list[list[Step]] = field(default_factory=lambda: [[]])
    last_frame: dict[int, int] = field(default_factory=dict)  # true end of a truncated episode


def fill(replay: Replay, count: int, seed: int = 0) -> Model:
    """Add `count` random steps; frames are numbered from 1, so that 0 is none."""
    random, model, number = np.random.default_rng(seed), Model(), 1
    for _ in range(count):
        kind = random.random()
        step = Step(number, int(random.integers(5)), float(random.normal()), kind < 0.1, False)
        step.truncated = 0.1 <= kind < 0.2
        final = frame(number + 1) if step.truncated else None
        replay.add(
            frame(number),
            step.action,
            step.reward,
            terminated=step.terminated,
            truncated=step.truncated,
            final=final,
        )
        model.episodes[-1].append(step)
        number += 1
        if step.truncated:
            model.last_frame[len(model.episodes) - 1] = number
            number += 1
        if step.terminated or step.truncated:
            model.episodes.append([])
    return model


def make(capacity: int = 1_000, **settings: float) -> Replay:
    return Replay(
        frame(0),
        capacity=capacity,
        stack=STACK,
        steps=STEPS,
        gamma=GAMMA,
        priority_exponent=settings.get("priority_exponent", 0.5),
        seed=0,
    )


def check(batch: Batch, row: int, model: Model) -> int:
    """Compare one transition of a batch with the list of episodes; returns its frame's number."""
    now = int(batch.obs["x"][row, -1, 0, 0])
    at = next(
        (e, t)
        for e, episode in enumerate(model.episodes)
        for t, s in enumerate(episode)
        if s.frame == now
    )
    episode, begin = model.episodes[at[0]], at[1]

    def stack(end: int) -> list[int]:
        frames = [s.frame for s in episode]
        if at[0] in model.last_frame:
            frames.append(model.last_frame[at[0]])
        return [frames[i] if i >= 0 else 0 for i in range(end - STACK + 1, end + 1)]

    assert batch.obs["x"][row, :, 0, 0].tolist() == stack(begin)
    window = episode[begin : begin + STEPS]
    assert batch.action[row].item() == episode[begin].action
    want = sum(GAMMA**i * s.reward for i, s in enumerate(window))
    assert batch.reward[row].item() == pytest.approx(want, abs=1e-5)
    if window[-1].terminated:
        assert batch.discount[row].item() == 0
    else:
        assert batch.discount[row].item() == pytest.approx(GAMMA ** len(window))
        assert batch.next_obs["x"][row, :, 0, 0].tolist() == stack(begin + len(window))
    return now


def test_transitions_are_those_of_the_episodes() -> None:
    replay = make()
    model = fill(replay, 150)
    batch = replay.sample(4_000, 0.4)
    states = {check(batch, row, model) for row in range(4_000)}
    ready = {
        step.frame
        for e, episode in enumerate(model.episodes)
        for t, step in enumerate(episode)
        if e + 1 < len(model.episodes) or t + STEPS < len(episode)
    }
    assert states == ready


@pytest.mark.parametrize("count", [37, 61, 100, 333])
def test_the_ring_may_have_wrapped(count: int) -> None:
    replay = make(capacity=30)
    model = fill(replay, count, seed=count)
    batch = replay.sample(500, 0.4)
    states = {check(batch, row, model) for row in range(500)}
    assert min(states) > count - 30
    assert (
        len(states) >= 30 - STACK - STEPS - 6
    )  # all but the ends and the truncated ones' extra rows


def test_stacks_are_zero_before_the_episode_in_every_key() -> None:
    replay = make()
    for number in (1, 2, 3, 4, 5, 6):
        replay.add(frame(number), 0, 0.0, terminated=number == 2, truncated=False)
    batch = replay.sample(200, 0.4)
    first = batch.obs["x"][:, -1, 0, 0] == 1
    assert first.any()
    for key in ("x", "mask", "pos"):
        assert not batch.obs[key][first, :2].any()
    assert batch.obs["mask"].dtype == torch.bool
    assert batch.obs["pos"].dtype == torch.int64
    assert batch.obs["x"].dtype == torch.float32


def test_a_truncated_step_needs_its_last_frame() -> None:
    with pytest.raises(ValueError, match="final"):
        make().add(frame(1), 0, 0.0, terminated=False, truncated=True)


def test_terminated_goes_before_truncated() -> None:
    replay = make()
    replay.add(frame(1), 0, 1.0, terminated=True, truncated=True)
    assert replay.sample(4, 0.4).discount.tolist() == [0, 0, 0, 0]
    assert len(replay) == 1


def test_rows_are_sampled_in_proportion_to_priority_to_the_alpha() -> None:
    replay = make(priority_exponent=0.5)
    for number in range(1, 9):
        replay.add(frame(number), 0, 0.0, terminated=True, truncated=False)
    priority = torch.tensor([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8])
    replay.reprioritise(torch.arange(8), priority)
    batch = replay.sample(200_000, 0.7)
    want = priority**0.5 / (priority**0.5).sum()
    got = torch.bincount(batch.index, minlength=8) / 200_000
    torch.testing.assert_close(got, want, atol=0.004, rtol=0)
    weight = (8 * want) ** -0.7
    torch.testing.assert_close(batch.weight, (weight / weight.max())[batch.index])
    assert batch.weight.max() == 1


def test_a_new_row_has_priority_one() -> None:
    replay = make(priority_exponent=1.0)
    for number in (1, 2):
        replay.add(frame(number), 0, 0.0, terminated=True, truncated=False)
    replay.reprioritise(torch.tensor([0]), torch.tensor([3.0]))
    indices = replay.sample(40_000, 0.4).index
    assert (indices == 0).float().mean().item() == pytest.approx(0.75, abs=0.02)


def test_without_priorities_rows_are_sampled_uniformly() -> None:
    """Without frames behind a cut or rows that still wait for theirs, in a full ring."""
    replay = make(capacity=30, priority_exponent=0.0)
    model = fill(replay, 100)
    batch = replay.sample(40_000, 0.4)
    allowed = replay._priority.nonzero()[:, 0]
    counts = batch.index.bincount(minlength=31)
    assert counts.nonzero()[:, 0].tolist() == allowed.tolist() and 5 < len(allowed) < 30
    share = counts[allowed] / 40_000 * len(allowed)
    assert share.min() > 0.85 and share.max() < 1.15
    assert torch.equal(batch.weight, torch.ones(40_000))
    for row in range(50):
        check(batch, row, model)


def test_continuous_actions_and_states_are_stored_exactly() -> None:
    """To the last bit, whereas a net's features are stored in half precision."""
    generator = torch.Generator().manual_seed(0)
    states, actions = (torch.rand(9, size, generator=generator) for size in (5, 2))
    replay = Replay(
        {"state": states[:1]}, capacity=20, stack=1, steps=1, gamma=GAMMA, priority_exponent=0.0,
        seed=0, action_size=2,
    )  # fmt: skip
    for row in range(8):
        cut = row == 7
        replay.add(
            {"state": states[row : row + 1]}, actions[row].numpy(), float(row), terminated=False,
            truncated=cut, final={"state": states[8:]} if cut else None,
        )  # fmt: skip
    batch = replay.sample(200, 1.0)
    rewards = batch.reward.long()
    assert sorted(set(rewards.tolist())) == list(range(8))
    assert torch.equal(batch.action, actions[rewards])
    assert torch.equal(batch.obs["state"][:, 0], states[rewards])
    assert torch.equal(batch.next_obs["state"][:, 0], states[rewards + 1])
    torch.testing.assert_close(batch.discount, torch.full((200,), GAMMA))


def equal(first: Batch, second: Batch) -> bool:
    for name in (f.name for f in fields(Batch)):
        a, b = getattr(first, name), getattr(second, name)
        pairs = [(a[k], b[k]) for k in a] if isinstance(a, dict) else [(a, b)]
        if not all(torch.equal(x, y) for x, y in pairs):
            return False
    return True


@pytest.mark.parametrize("saves", [(20,), (5, 17, 29), (40, 41, 90), (25, 100, 130)])
def test_a_loaded_replay_continues_as_saved(saves: tuple[int, ...], tmp_path: Path) -> None:
    replay, added, state = make(capacity=30), 0, {}
    for stop in saves:
        fill(replay, stop - added, seed=stop)
        replay.reprioritise(replay.sample(6, 0.5).index, torch.rand(6))
        state, added = replay.save(tmp_path), stop
    loaded = make(capacity=30)
    loaded.load(tmp_path, state)
    assert equal(replay.sample(64, 0.5), loaded.sample(64, 0.5))
    fill(replay, 50, seed=9)
    fill(loaded, 50, seed=9)
    assert equal(replay.sample(64, 0.5), loaded.sample(64, 0.5))


def test_a_save_writes_new_rows_and_drops_overwritten_ones(tmp_path: Path) -> None:
    replay = make(capacity=30)
    names = []
    for _ in range(5):
        for number in range(10):
            replay.add(frame(number), 0, 0.0, terminated=True, truncated=False)
        replay.save(tmp_path)
        names.append(sorted(path.name for path in tmp_path.glob("[!.]*")))
    assert names[1] == [
        "rows-000000000-000000010.safetensors",
        "rows-000000010-000000020.safetensors",
    ]
    assert "rows-000000000-000000010.safetensors" in names[3]  # the save before needs it still
    assert names[4][0] == "rows-000000010-000000020.safetensors"


def test_segments_of_an_unfinished_checkpoint_are_dropped(tmp_path: Path) -> None:
    replay = make()
    fill(replay, 20)
    state = replay.save(tmp_path)
    fill(replay, 20, seed=1)
    replay.save(tmp_path)  # and killed before this one's state was kept
    loaded = make()
    loaded.load(tmp_path, state)
    assert len(list(tmp_path.glob("[!.]*"))) == 1


def test_missing_and_damaged_segments_are_named(tmp_path: Path) -> None:
    replay = make()
    fill(replay, 20)
    state = replay.save(tmp_path)
    (segment,) = tmp_path.glob("[!.]*")
    segment.write_bytes(segment.read_bytes()[:-5])
    with pytest.raises(FoveaError, match=segment.name):
        make().load(tmp_path, state)
    segment.unlink()
    with pytest.raises(FoveaError, match="missing"):
        make().load(tmp_path, state)


def test_a_ring_too_small_for_one_transition_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity"):
        make(capacity=6)


def test_a_ring_too_large_for_the_memory_is_refused() -> None:
    with pytest.raises(FoveaError, match=r"replay_capacity: 1,000,000,000,000 .*12,000.0 GB.*cpu"):
        Replay(
            frame(1), capacity=10**12, stack=STACK, steps=STEPS, gamma=GAMMA,
            priority_exponent=0.5, seed=0,
        )  # fmt: skip
