"""Several seeds as one: every update, game and checkpoint is what the seed would have had alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from datasets.files import write_atomic
from pretrain.encoder import Encoder, Obs
from rl import agents, loops
from rl.agent import Batch, State
from rl.agents.rainbow import Agent, Config
from rl.features import Images, Infos
from rl.play import Action
from rl.run import DivergedError, Run, Seed
from rl.seeds import Seeds
from tests.rl import fakes

SEEDS = (0, 1, 2)


@pytest.fixture(autouse=True)
def _chain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("datasets.envs.make", fakes.make_chain)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def agent(seed: int, encoder: Encoder, config: Config = fakes.SMALL, device: str = "cpu") -> Agent:
    made = agents.make("rainbow", config, encoder, actions=3, seed=seed, device=device)
    return cast(Agent, made)


def batch(encoder: Encoder, seed: int, config: Config = fakes.SMALL) -> Batch:
    draw, size = torch.Generator().manual_seed(seed), config.batch_size

    def stack() -> Obs:
        shape = (size * config.stack, 3, fakes.SIZE, fakes.SIZE)
        obs = encoder(torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8))
        return {key: value.view(size, config.stack, *value.shape[1:]) for key, value in obs.items()}

    return Batch(
        obs=stack(),
        action=torch.randint(3, (size,), generator=draw),
        reward=torch.randn(size, generator=draw),
        discount=torch.rand(size, generator=draw),
        next_obs=stack(),
        weight=torch.rand(size, generator=draw),
        index=torch.arange(size),
    )


def tensors(state: Any) -> Iterator[Tensor]:
    """All of them in an agent's state."""
    if isinstance(state, Tensor):
        yield state
    for part in state.values() if isinstance(state, dict) else ():
        yield from tensors(part)


def assert_alike(one: Agent, other: Agent) -> None:
    pairs = zip(tensors(one.state_dict()), tensors(other.state_dict()), strict=True)
    for own, theirs in pairs:
        torch.testing.assert_close(own, theirs, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("encoder", [fakes.Tokens(), fakes.Pixels()], ids=["tokens", "pixels"])
@pytest.mark.parametrize("norm", [10.0, 0.01], ids=["whole", "clipped"])
def test_every_update_is_the_seeds_own(encoder: Encoder, norm: float) -> None:
    # A rate at which rounding does not grow into another choice of double Q's.
    config = replace(fakes.SMALL, gradient_norm=norm, learning_rate=1e-4)
    alone, joined = ([agent(seed, encoder, config) for seed in SEEDS] for _ in range(2))
    together = Seeds(joined)
    for number in range(25):  # past a copy of the target network
        batches = [batch(encoder, 10 * number + seed, config) for seed in SEEDS]
        told = together.update(batches)
        for one, own, found in zip(alone, batches, told, strict=True):
            expected = one.update(own)
            assert expected.keys() == found.keys()
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, atol=1e-4, rtol=1e-3)
    for one, other in zip(alone, joined, strict=True):
        assert_alike(one, other)
    first, second, _ = joined
    assert not torch.equal(first.policy.head.value.weight, second.policy.head.value.weight)


def test_actions_are_the_seeds_own() -> None:
    encoder, config = fakes.Tokens(), replace(fakes.SMALL, sigma=20.0)
    alone, joined = ([agent(seed, encoder, config) for seed in range(8)] for _ in range(2))
    together = Seeds(joined)
    own: list[State | None] = [None] * 8
    state: State | None = None
    chosen = set()
    draw = torch.Generator().manual_seed(0)
    for number in range(4):
        images = torch.randint(0, 256, (8, *encoder.image_shape), generator=draw).byte()
        obs, first = encoder(images), torch.tensor([number % 3 == 0] * 8)
        wanted, state, _ = together.act(obs, state, first, explore=True)
        for seed, one in enumerate(alone):
            row = {key: value[seed : seed + 1] for key, value in obs.items()}
            action, own[seed], _ = one.act(row, own[seed], first[:1], explore=True)
            assert action == wanted[seed]
        chosen.add(tuple(wanted.tolist()))
    assert len(chosen) > 1


def test_an_agent_goes_on_alone_where_the_seeds_left_it() -> None:
    """Weights and moments are its own again, whatever becomes of the others."""
    encoder = fakes.Tokens()
    joined = [agent(seed, encoder) for seed in SEEDS]
    together = Seeds(joined)
    for number in range(5):
        together.update([batch(encoder, 10 * number + seed) for seed in SEEDS])
    kept = deepcopy(joined[1].state_dict())
    fresh = agent(7, encoder)
    fresh.load_state_dict(kept)
    fewer = Seeds(joined[1:])
    for number in range(5, 10):
        batches = [batch(encoder, 10 * number + seed) for seed in SEEDS[1:]]
        fewer.update(batches)
        fresh.update(batches[0])
    assert_alike(joined[1], fresh)


def test_seeds_that_are_not_equally_far_are_refused() -> None:
    encoder = fakes.Tokens()
    pair = [agent(seed, encoder) for seed in (0, 1)]
    pair[1].update(batch(encoder, 0))
    with pytest.raises(ValueError, match=r"agents: after \[0, 1\] updates"):
        Seeds(pair)


# Whole trainings


def train(folder: Path, numbers: tuple[int, ...] = SEEDS, **policy: Any) -> list[DivergedError]:
    seeds = [Seed(fakes.policy(seed=number, **policy), folder / str(number)) for number in numbers]
    for seed in seeds:
        seed.folder.mkdir(parents=True, exist_ok=True)
    return loops.train_together(seeds, checkpoint_every=60, resume_every=25, progress=fakes.ignore)


def assert_same_training(one: Path, other: Path) -> None:
    """The same games, and weights alike."""
    assert (one / "curve.csv").read_text() == (other / "curve.csv").read_text()
    assert (one / "metrics.json").read_text() == (other / "metrics.json").read_text()
    names = [sorted(path.name for path in folder.iterdir()) for folder in (one, other)]
    assert names[0] == names[1]
    for path in one.glob("weights-*"):
        own, theirs = load_file(path), load_file(other / path.name)
        for key, value in own.items():
            torch.testing.assert_close(value, theirs[key], atol=1e-4, rtol=1e-3)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each seed comes to by itself."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.envs.make", fakes.make_chain)
        torch.set_num_threads(1)
        for seed in SEEDS:
            assert train(folder, (seed,)) == []
    return folder


def test_seeds_trained_together_end_as_they_do_alone(alone: Path, tmp_path: Path) -> None:
    assert train(tmp_path) == []
    for seed in SEEDS:
        assert_same_training(tmp_path / str(seed), alone / str(seed))


def test_seeds_killed_between_two_checkpoints_go_on(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill comes when the first seed's checkpoint of step 75 is there and the others' are not.
    A fourth seed begins only then.
    """

    def write(path: Path, data: bytes) -> None:
        write_atomic(path, data)
        written.append(path.name)
        if written.count("state.pt") == 7:
            raise KeyboardInterrupt

    written: list[str] = []
    monkeypatch.setattr("rl.run.write_atomic", write)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr("datasets.envs.make", fakes.make_chain)
    assert train(tmp_path, (*SEEDS, 3)) == []
    for seed in SEEDS:
        assert_same_training(tmp_path / str(seed), alone / str(seed))
    assert (tmp_path / "3/metrics.json").exists()


def test_a_seed_that_diverges_leaves_the_others_alone(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Agent.prepare

    def prepare(self: Agent) -> None:
        real(self)
        if self.generator.initial_seed() == 1 and self.updates == 29:
            with torch.no_grad():
                self.weights["policy.head.value.bias"].fill_(np.nan)

    monkeypatch.setattr(Agent, "prepare", prepare)
    real_act, steps = Run.act, [0]

    def act(self: Run, action: Action) -> tuple[Images, Infos]:
        if self.step > 70:  # the others', who go on: a kill now must not make it begin again
            assert (tmp_path / "1/failed.json").exists()
            steps[0] += 1
        return real_act(self, action)

    monkeypatch.setattr(Run, "act", act)
    (error,) = train(tmp_path)
    assert steps[0]
    assert (error.seed, error.step) == (1, 70) and "seed 1: the loss is not finite" in str(error)
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == ["curve.csv", "failed.json", "weights-0000060.safetensors"]
    failed = json.loads((tmp_path / "1/failed.json").read_text())
    assert failed == {"error": str(error), "step": 70}
    for seed in (0, 2):
        assert_same_training(tmp_path / str(seed), alone / str(seed))


def test_finished_seeds_are_left_alone(tmp_path: Path) -> None:
    train(tmp_path, (0,))
    before = (tmp_path / "0/metrics.json").stat().st_mtime_ns
    assert train(tmp_path, (0, 1)) == []
    assert (tmp_path / "0/metrics.json").stat().st_mtime_ns == before
    assert json.loads((tmp_path / "1/metrics.json").read_text())["steps"] == fakes.SMALL.steps
