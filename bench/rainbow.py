"""One Rainbow update, sampling included, against the same mathematics as in textbooks.

The baseline attends in full, from every token to every token (nn.MultiheadAttention), or convolves
with nn.Conv2d on frames converted to floats. It indexes the replay with [...], masks the stacks by
multiplying, and runs Adam and the clipping of the norm parameter by parameter. Weights, noise,
batches and loss are the same; the first three losses are compared, so both do the same work.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from multiprocessing.synchronize import Barrier
from typing import Any, cast

import torch
from torch import Tensor, nn

from pretrain.encoder import Obs
from rl import nets
from rl.agents.rainbow import NETS, Agent, Config, _of_actions
from rl.layers import resample_noise
from rl.net import Net
from rl.nets import data_efficient_cnn, tokens
from rl.replay import Replay
from rl.stack import FrameStack

ACTIONS, PATCHES, DIM = 18, 50, 64
# Rows of the replay: those of a whole run, and as many as fit into memory.
ROWS = {"tokens": 100_000, "pixels": 10_000}
ROUNDS = 5


def run() -> dict[str, object]:
    """Medians of updates/s on one thread and of the rounds' ratios (ours / plain).

    The figures of two seeds in parallel are their sums.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    figures: dict[str, object] = {
        "what": "Rainbow update, batch 32, 4 frames, 18 actions, one thread, against plain torch",
        "rounds": ROUNDS,
    }
    for kind, updates in (("tokens", 10), ("pixels", 3)):
        ours, uncompiled, plain = _ours(kind), _ours(kind, compiled=False), _plain(kind)
        for _ in range(3):  # also the warm-up
            expected = plain()
            for update in (ours, uncompiled):
                torch.testing.assert_close(update(), expected, atol=1e-4, rtol=1e-4)
        rounds = [
            [rate(update, updates) for update in (ours, uncompiled, plain)] for _ in range(ROUNDS)
        ]
        for number, name in enumerate(("updates", "uncompiled", "plain")):
            figures[f"{kind}_{name}_per_second"] = statistics.median(r[number] for r in rounds)
        figures[f"{kind}_ratio"] = statistics.median(own / other for own, _, other in rounds)
    both, both_plain = _in_parallel(_ours, 300), _in_parallel(_plain, 30)
    figures |= {"two_seeds_updates_per_second": both, "two_seeds_plain_per_second": both_plain}
    figures["two_seeds_ratio"] = both / both_plain
    torch.set_num_threads(threads)
    return figures


def _in_parallel(make: Callable[[str], Callable[[], Tensor]], count: int) -> float:
    """The sum of updates/s on tokens of two processes, as of two seeds of a run on two cores."""
    context = multiprocessing.get_context("spawn")
    start, rates = context.Barrier(2), context.SimpleQueue()
    workers = [context.Process(target=_work, args=(make, count, start, rates)) for _ in range(2)]
    for worker in workers:
        worker.start()
    total: float = sum(rates.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total


def _work(
    make: Callable[[str], Callable[[], Tensor]], count: int, start: Barrier, rates: Any
) -> None:
    torch.set_num_threads(1)
    update = make("tokens")
    for _ in range(3):
        update()
    start.wait()
    rates.put(rate(update, count))


def rate(update: Callable[[], object], count: int) -> float:
    """Updates a second."""
    start = time.perf_counter()
    for _ in range(count):
        update()
    return count / (time.perf_counter() - start)


def _frame(kind: str, generator: torch.Generator) -> Obs:
    if kind == "pixels":
        image = torch.randint(256, (1, 3, 96, 96), generator=generator, dtype=torch.uint8)
        return {"image": image}
    return {
        "x": torch.randn(1, PATCHES, DIM, generator=generator),
        "mask": torch.ones(1, PATCHES, dtype=torch.bool),
        "pos": torch.arange(PATCHES)[None],
    }


def _fill(kind: str, ring: type[Replay]) -> Replay:
    """Episodes of 100 random frames."""
    config, generator = Config(), torch.Generator().manual_seed(0)
    replay = ring(
        _frame(kind, generator), capacity=ROWS[kind], stack=config.stack, steps=config.n_step,
        gamma=config.gamma, priority_exponent=config.priority_exponent, seed=0,
    )  # fmt: skip
    for row in range(ROWS[kind]):
        over = row % 100 == 99
        replay.add(
            _frame(kind, generator), row % ACTIONS, row % 3 - 1, terminated=over, truncated=False
        )
    return replay


def _agent(kind: str, change: Callable[[Net], Net]) -> Agent:
    torch.manual_seed(0)
    frame, name = _frame(kind, torch.Generator()), NETS[kind]
    core = nets.make(name, nets.config_for(name)(), frame, Config().stack, ACTIONS)
    assert isinstance(core, FrameStack)
    core = FrameStack(change(core.net), core.depth, frame)
    torch.manual_seed(1)  # the same head whatever numbers the net has sampled
    return Agent(Config(), core, actions=ACTIONS, seed=0, device="cpu")


def _ours(kind: str, *, compiled: bool = True) -> Callable[[], Tensor]:
    agent, replay = _agent(kind, lambda net: net), _fill(kind, Replay)
    if compiled:  # as in a long run; on a CPU this does not change the update on pixels
        agent.compile()

    def update() -> Tensor:
        batch = replay.sample(agent.config.batch_size, 0.4)
        scalars = agent.update(batch)
        replay.reprioritise(batch.index, scalars["priority"])
        return scalars["loss"]

    return update


def _plain(kind: str) -> Callable[[], Tensor]:
    agent = _agent(kind, _PlainTokens if kind == "tokens" else _PlainPixels)
    replay = _fill(kind, _PlainReplay)
    config, policy, target = agent.config, agent.policy, agent.target
    trained = agent.trained_parameters
    optimizer = torch.optim.Adam(
        trained, lr=config.learning_rate, eps=config.adam_epsilon, foreach=False
    )

    def update() -> Tensor:
        batch = replay.sample(config.batch_size, 0.4)
        resample_noise(policy, agent.generator)
        resample_noise(target, agent.generator)
        target_probability = agent.targets(batch)
        log_probability = _of_actions(policy(batch.obs), batch.action).log_softmax(-1)
        divergence = torch.xlogy(target_probability, target_probability)
        divergence = (divergence - target_probability * log_probability).sum(-1)
        loss = (batch.weight * divergence).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained, config.gradient_norm, foreach=False)
        optimizer.step()
        replay.reprioritise(batch.index, divergence.detach())
        return loss.detach()

    return update


class _PlainReplay(Replay):
    """Indexes every column on its own, and multiplies frames before the episode by zero."""

    def _stacks(self, *index: Tensor) -> list[Obs]:
        return [self._one(part) for part in index]

    def _one(self, index: Tensor) -> Obs:
        back = torch.arange(self.stack - 1, -1, -1)
        frames = (index[:, None] - back) % self.capacity
        inside = self._rows["age"][index][:, None] >= back
        stacked: Obs = {}
        for key, dtype in self._dtypes.items():
            value = self._rows[f"obs.{key}"][frames].to(dtype)
            stacked[key] = value * inside.view(*inside.shape, *[1] * (value.dim() - 2))
        return stacked


class _PlainTokens(Net):
    """The aggregator's weights in torch's own attention, which computes every row of the block."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        ours = cast(tokens.Net, deepcopy(net))
        self.width = ours.width
        self.project, self.cls, self.mlp = ours.project, ours.cls, ours.mlp
        self.norm1, self.norm2, self.norm = ours.norm1, ours.norm2, ours.norm
        width = ours.config.width
        self.attention = nn.MultiheadAttention(width, ours.config.heads, batch_first=True)
        self.attention.load_state_dict(
            {
                "in_proj_weight": torch.cat([ours.query.weight, ours.key_value.weight]),
                "in_proj_bias": torch.cat([ours.query.bias, ours.key_value.bias]),
                "out_proj.weight": ours.out.weight,
                "out_proj.bias": ours.out.bias,
            }
        )

    def forward(self, stack: Obs) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.project(stack["x"].flatten(0, 1))
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        x = self.norm1(x)
        x, attention = self.attention(x, x, x)
        x = self.norm(self.mlp(self.norm2(x)))[:, 0]
        return x.reshape(-1, self.width), {"attention": attention}


class _PlainPixels(Net):
    """nn.Conv2d on floats between 0 and 1."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.width = net.width
        ours, *rest = cast(data_efficient_cnn.Net, deepcopy(net)).convolutions
        assert isinstance(ours, nn.Conv2d)
        first = nn.Conv2d(ours.in_channels, ours.out_channels, 5, stride=5)
        first.load_state_dict(ours.state_dict())
        self.convolutions = nn.Sequential(first, *rest)

    def forward(self, stack: Obs) -> tuple[Tensor, dict[str, Tensor]]:
        return self.convolutions(stack["image"].flatten(1, 2).float() / 255), {}


if __name__ == "__main__":
    for key, value in run().items():
        print(key, value)
