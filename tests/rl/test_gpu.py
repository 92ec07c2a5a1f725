"""What only a GPU shows: seeds as one, compiled or not, against each seed alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pretrain.encoder import Obs
from rl.agent import Batch
from rl.seeds import Seeds
from tests.rl import fakes
from tests.rl.test_seeds import SEEDS, agent, assert_alike, batch

pytestmark = pytest.mark.gpu


def on_gpu(found: Batch) -> Batch:
    def moved(obs: Obs) -> Obs:
        return {key: value.cuda() for key, value in obs.items()}

    return replace(
        found,
        obs=moved(found.obs),
        action=found.action.cuda(),
        reward=found.reward.cuda(),
        discount=found.discount.cuda(),
        next_obs=moved(found.next_obs),
        weight=found.weight.cuda(),
        index=found.index.cuda(),
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_seeds_on_a_gpu_learn_as_each_alone(compiled: bool) -> None:
    encoder = fakes.Tokens()
    alone, joined = ([agent(seed, encoder, device="cuda") for seed in SEEDS] for _ in range(2))
    if compiled:
        joined[0].compile()
    together = Seeds(joined)
    for number in range(5):
        batches = [on_gpu(batch(encoder, 10 * number + seed)) for seed in SEEDS]
        together.update(batches)
        for one, own in zip(alone, batches, strict=True):
            one.update(own)
    for one, other in zip(alone, joined, strict=True):
        assert_alike(one, other)
