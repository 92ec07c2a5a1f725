"""Requirements of a GPU on an update of Rainbow, tested without one: no operation waits for the
device, from sampling to new priorities, and no shape depends on sampled values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rl.replay import Replay
from tests.rl import fakes

# Operators that wait: their result is a Python number, or its shape is in the data.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "index by mask")

Call = tuple[str, list[tuple[int, ...]]]  # an operator, the shapes that go in and come out


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # is torch's
    """Records all operators."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name.startswith("index") and any(t.dtype == torch.bool for t in tensors(args[1:])):
            name = "index by mask"
        self.calls.append((name, [tuple(tensor.shape) for tensor in tensors((args, output))]))
        return output


def tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def replay_of(encoder: fakes.Tokens, seed: int) -> Replay:
    """Two episodes of random frames."""
    draw = torch.Generator().manual_seed(seed)
    image = (1, *encoder.image_shape)

    def obs() -> Any:
        return encoder(torch.randint(0, 256, image, generator=draw, dtype=torch.uint8))

    config = fakes.SMALL
    replay = Replay(
        obs(), capacity=100, stack=config.stack, steps=config.n_step, gamma=config.gamma,
        priority_exponent=config.priority_exponent, seed=seed,
    )  # fmt: skip
    for row in range(60):
        replay.add(obs(), row % 3, float(row % 5), terminated=row % 30 == 29, truncated=False)
    return replay


def test_an_update_never_waits_and_its_shapes_are_constant() -> None:
    encoder = fakes.Tokens()
    agent, replay = fakes.policy(encoder=encoder).agent, replay_of(encoder, 0)

    def update() -> None:
        batch = replay.sample(agent.config.batch_size, 0.4)
        replay.reprioritise(batch.index, agent.update(batch)["priority"])

    update()  # Adam's first step sets itself up
    first, second = Watch(), Watch()
    for watch in (first, second):
        with watch:
            update()
    assert len(first.calls) > 100
    assert [name for name, _ in first.calls if name in WAITING] == []
    assert first.calls == second.calls


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: float(x.sum()),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.masked_fill_(x > 0, 0).nonzero(),
        lambda x: x.unique(),
    ],
)
def test_waiting_is_detected(wait: Callable[[Tensor], object]) -> None:
    with Watch() as watch:
        wait(torch.randn(5))
    assert any(name in WAITING for name, _ in watch.calls), watch.calls
