"""N-step replay of single frames' features, prioritised (Schaul et al. 2016, proportional).

A row is one frame's features and the step that followed. Stacks, n-step returns and next states are
assembled when sampling, so nothing is stored twice. A truncated episode has one more row, its true
last frame, from which no step was taken. So the row after a step is always its next frame, unless
the episode terminated.

A row can be sampled once its transition is complete: after n more rows or the episode's end, and
while the ring has not overwritten its stack. New rows have priority 1. Weights are (N·p)^−β over
the batch's maximum, in which N cancels. With α = 0 all priorities are 1: rows are then sampled
uniformly, at the cost of the batch and not of the whole ring.

Features are stored as float16, in half the memory. The relative error is at most 2⁻¹¹ (below 2⁻¹⁴
the error is at most 2⁻²⁵), and values must be below 65,520. This rounding is the only difference
from storing float32. Acting uses features that are not rounded. A state is stored as float32:
speeds are small differences between its values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.errors import FoveaError
from pretrain.encoder import Obs
from rl.agent import Batch
from rl.replay_files import drop_rows, read_rows, write_rows
from rl.returns import n_step

_SMALLER = {torch.float32: torch.float16, torch.int64: torch.int16}  # types in the ring


class Replay:
    """A ring of `capacity` rows on one device, filled by one environment in time order."""

    def __init__(
        self,
        example: Obs,
        *,
        capacity: int,
        stack: int,
        steps: int,
        gamma: float,
        priority_exponent: float,
        seed: int,
        device: torch.device | str = "cpu",
        action_size: int | None = None,
    ) -> None:
        """`example` is one frame's Obs (any batch size), `steps` the n of the n-step return.

        `action_size` is the length of a continuous action; None for discrete actions.
        """
        if capacity < steps + stack:
            raise ValueError(f"capacity: {capacity}, must be at least {steps + stack}")
        self.capacity, self.stack, self.steps = capacity, stack, steps
        self.gamma, self.priority_exponent = gamma, priority_exponent
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self._dtypes = {key: value.dtype for key, value in example.items()}
        self._rows = {
            f"obs.{key}": self._column(_ring_dtype(key, value.dtype), *value.shape[1:])
            for key, value in example.items()
        } | {
            "action": self._column(torch.int64)
            if action_size is None
            else self._column(torch.float32, action_size),
            "reward": self._column(torch.float32),
            "terminated": self._column(torch.bool),
            "truncated": self._column(torch.bool),
            "age": self._column(torch.int64),  # steps since the episode's first frame
        }
        self._priority = self._column(torch.float32)  # p^α; 0 for rows that can't be sampled
        self._age = 0  # of the next row
        self._total = 0  # rows ever added; the next one goes to slot _total % capacity
        self._saved_rows = 0  # rows already in segment files

    def _column(self, dtype: torch.dtype, *shape: int) -> Tensor:
        """`capacity` slots, and one that stays zero, for stacks at an episode's beginning."""
        try:
            return torch.zeros(self.capacity + 1, *shape, dtype=dtype, device=self.device)
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            # torch's message has a number of bytes, and no key.
            size = self.capacity * math.prod(shape) * dtype.itemsize / 1e9
            raise FoveaError(
                f"replay_capacity: {self.capacity:,} steps take more than {size:,.1f} GB, which is "
                f"not free on {self.device}; lower it, or `seeds`, which train in parallel"
            ) from error

    def __len__(self) -> int:
        """The number of rows."""
        return min(self._total, self.capacity)

    def add(
        self,
        obs: Obs,
        action: int | NDArray[np.generic],
        reward: float,
        *,
        terminated: bool,
        truncated: bool,
        final: Obs | None = None,
    ) -> None:
        """Add one step taken from the frame `obs` (batch of one), in time order.

        `final` is the frame after a truncated step, for which it is required.
        """
        if truncated and not terminated and final is None:
            raise ValueError("final: missing, a truncated step needs the frame after it")
        age = self._age
        self._write(obs, action, reward, terminated, truncated and not terminated)
        if age >= self.steps:
            self._release(self._total - 1 - self.steps, 1)  # its transition is complete now
        if terminated or truncated:
            if not terminated:
                assert final is not None
                self._write(final, 0, 0.0, False, False)
            waiting = min(age + 1, self.steps)
            self._release(self._total - waiting - (not terminated), waiting)
            self._age = 0

    def _write(
        self,
        obs: Obs,
        action: int | NDArray[np.generic],
        reward: float,
        terminated: bool,
        truncated: bool,
    ) -> None:
        slot = self._total % self.capacity
        for key, value in obs.items():
            self._rows[f"obs.{key}"][slot] = value[0]
        self._rows["action"][slot] = torch.as_tensor(action)
        self._rows["reward"][slot] = reward
        self._rows["terminated"][slot] = terminated
        self._rows["truncated"][slot] = truncated
        self._rows["age"][slot] = self._age
        for broken in range(self.stack):  # rows after this one lose a frame of their stack
            self._priority[(slot + broken) % self.capacity] = 0.0
        self._age += 1
        self._total += 1

    def _release(self, first: int, count: int) -> None:
        """Allow rows to be sampled from now on, at priority 1."""
        rows = torch.arange(first, first + count, device=self.device)
        self._priority[rows % self.capacity] = 1.0

    def sample(self, size: int, beta: float) -> Batch:
        """Sample `size` transitions with replacement, in proportion to their priority."""
        index = self._index(size) if self.priority_exponent else self._index_uniform(size)
        window = (index[:, None] + torch.arange(self.steps, device=self.device)) % self.capacity
        reward, discount, length = n_step(
            self._rows["reward"][window],
            self._rows["terminated"][window],
            self._rows["truncated"][window],
            self.gamma,
        )
        following = torch.where(discount > 0, index + length, index) % self.capacity
        weight = self._priority[index] ** -beta
        obs, next_obs = self._stacks(index, following)
        return Batch(
            obs=obs,
            action=self._rows["action"][index],
            reward=reward,
            discount=discount,
            next_obs=next_obs,
            weight=weight / weight.max(),
            index=index,
        )

    def _index(self, size: int) -> Tensor:
        cumulative = self._priority.cumsum(0, dtype=torch.float64)
        point = torch.rand(size, generator=self.generator, device=self.device, dtype=torch.float64)
        index = torch.searchsorted(cumulative, point * cumulative[-1], right=True)
        return index.clamp_max(self.capacity - 1)

    def _index_uniform(self, size: int) -> Tensor:
        """Uniformly random rows; the few that can't be sampled are replaced."""
        settings: dict[str, Any] = {"generator": self.generator, "device": self.device}
        index = torch.randint(len(self), (size,), **settings)
        while (wrong := self._priority[index] == 0).any():
            index = torch.where(wrong, torch.randint(len(self), (size,), **settings), index)
        return index

    def _stacks(self, *index: Tensor) -> list[Obs]:
        """The stacks (B, stack, ...) of each (B,) of rows: the frames and those before them."""
        row = torch.cat(index)
        back = torch.arange(self.stack - 1, -1, -1, device=self.device)
        inside = self._rows["age"][row][:, None] >= back
        frames = torch.where(inside, (row[:, None] - back) % self.capacity, self.capacity)
        sizes = [len(part) for part in index]
        parts: list[Obs] = [{} for _ in index]
        for key, dtype in self._dtypes.items():
            # Copies whole rows: indexing with [frames] would copy value by value.
            value = self._rows[f"obs.{key}"].index_select(0, frames.view(-1)).to(dtype)
            stacks = value.view(*frames.shape, *value.shape[1:])
            for part, piece in zip(parts, stacks.split_with_sizes(sizes), strict=True):
                part[key] = piece
        return parts

    def reprioritise(self, index: Tensor, priority: Tensor) -> None:
        """Set priorities (B,) of the last batch's rows; no row may be added in between."""
        self._priority[index] = priority.float().clamp_min(1e-6) ** self.priority_exponent

    def save(self, folder: Path) -> dict[str, object]:
        """Write the rows added since the last save as one file; return the rest of the state.

        The last returned state can be loaded until the next call.
        """
        drop_rows(folder, self._saved_rows - self.capacity)
        start = max(self._saved_rows, self._total - self.capacity)
        if start < self._total:
            slots = torch.arange(start, self._total, device=self.device) % self.capacity
            rows = {key: column[slots].cpu() for key, column in self._rows.items()}
            write_rows(folder, rows, start, self._total)
        self._saved_rows = self._total
        return {
            "total": self._total,
            "age": self._age,
            "priority": self._priority.clone(),
            "generator": self.generator.get_state(),
        }

    def load(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Restore the replay at the `save` that returned `state`, bit for bit.

        Raises FoveaError if a file of its rows is missing or damaged.
        """
        total: int = state["total"]
        kinds = {key: (column.dtype, column.shape[1:]) for key, column in self._rows.items()}
        for start, stop, rows in read_rows(folder, max(0, total - self.capacity), total, kinds):
            slots = torch.arange(start, stop, device=self.device) % self.capacity
            for key, column in self._rows.items():
                column[slots] = rows[key].to(self.device)
        self._total = self._saved_rows = total
        self._age = state["age"]
        self._priority.copy_(state["priority"])
        self.generator.set_state(state["generator"].cpu())


def _ring_dtype(key: str, dtype: torch.dtype) -> torch.dtype:
    return dtype if key == "state" else _SMALLER.get(dtype, dtype)
