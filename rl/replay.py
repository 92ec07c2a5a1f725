"""N-step replay of single frames' features, prioritised (Schaul et al. 2016, proportional).

A row is one frame's features and the step taken from them. Stacks, n-step returns and next states
are put together when sampling, so nothing is stored twice. An episode that is truncated gets one
row more: its true last frame, from which no step was taken; so the row after a step is always what
the step led to, unless the episode terminated.

A row can be sampled once everything its transition needs is there: n more rows or the episode's end
behind it, and its stack not yet overwritten by the ring. New rows have priority 1. Weights are
(N·p)^−β over the batch's maximum, in which N cancels. With α = 0 all priorities are 1: rows are
then sampled uniformly, at the cost of the batch and not of the whole ring.

Numbers are stored as float16, half the memory: each is off by at most 2⁻¹¹ of itself (by 2⁻²⁵ below
2⁻¹⁴), and must stay below 65,520. That rounding is the one difference from storing float32; what
acting sees is not rounded. A state is stored as it is: speeds are small differences of its numbers.
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

_STORED = {torch.float32: torch.float16, torch.int64: torch.int16}  # smaller in the ring


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

        `action_size` is how many numbers a continuous action has; None where it is an index.
        """
        if capacity < steps + stack:
            raise ValueError(f"capacity: {capacity}, must be at least {steps + stack}")
        self.capacity, self.stack, self.steps = capacity, stack, steps
        self.gamma, self.priority_exponent = gamma, priority_exponent
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self._returned = {key: value.dtype for key, value in example.items()}
        self._rows = {
            f"obs.{key}": self._column(_stored(key, value.dtype), *value.shape[1:])
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
        self._priority = self._column(torch.float32)  # p^α; 0 for what can't be sampled
        self._age = 0  # of the row to come
        self._total = 0  # rows ever added; the next one goes to slot _total % capacity
        self._saved = 0  # rows already in segment files

    def _column(self, dtype: torch.dtype, *shape: int) -> Tensor:
        """`capacity` slots, and one that stays zero: what stacks show before an episode."""
        try:
            return torch.zeros(self.capacity + 1, *shape, dtype=dtype, device=self.device)
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            # What torch says has a number of bytes and no key.
            size = self.capacity * math.prod(shape) * dtype.itemsize / 1e9
            raise FoveaError(
                f"replay_capacity: {self.capacity:,} steps take {size:,.1f} GB and more, which "
                f"{self.device} has not free; lower it, or `seeds`, which train side by side"
            ) from error

    def __len__(self) -> int:
        """Rows held."""
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
        """One step taken from the frame `obs` (batch of one), in time order.

        `final` is the frame that a truncated step led to, and must be given for those.
        """
        if truncated and not terminated and final is None:
            raise ValueError("final: missing, a truncated step needs the frame it led to")
        age = self._age
        self._write(obs, action, reward, terminated, truncated and not terminated)
        if age >= self.steps:
            self._release(self._total - 1 - self.steps, 1)  # this row is the one it waited for
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
        """Let rows be sampled from now on, at priority 1."""
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
        obs, next_obs = self._stacked(index, following)
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
        """Any row held; again for those that can't be sampled, which are few."""
        settings: dict[str, Any] = {"generator": self.generator, "device": self.device}
        index = torch.randint(len(self), (size,), **settings)
        while (wrong := self._priority[index] == 0).any():
            index = torch.where(wrong, torch.randint(len(self), (size,), **settings), index)
        return index

    def _stacked(self, *index: Tensor) -> list[Obs]:
        """Each (B,) of rows with the frames before them, (B, stack, ...)."""
        row = torch.cat(index)
        back = torch.arange(self.stack - 1, -1, -1, device=self.device)
        inside = self._rows["age"][row][:, None] >= back
        frames = torch.where(inside, (row[:, None] - back) % self.capacity, self.capacity)
        sizes = [len(part) for part in index]
        parts: list[Obs] = [{} for _ in index]
        for key, dtype in self._returned.items():
            # Whole rows at a time: indexing with [frames] would copy number by number.
            value = self._rows[f"obs.{key}"].index_select(0, frames.view(-1)).to(dtype)
            stacked = value.view(*frames.shape, *value.shape[1:])
            for part, piece in zip(parts, stacked.split_with_sizes(sizes), strict=True):
                part[key] = piece
        return parts

    def reprioritise(self, index: Tensor, priority: Tensor) -> None:
        """New priorities (B,) for the rows of the batch just sampled; nothing added in between."""
        self._priority[index] = priority.float().clamp_min(1e-6) ** self.priority_exponent

    def save(self, folder: Path) -> dict[str, object]:
        """Write the rows added since the last save as one file; return the rest of the state.

        The state that the last save returned can be loaded until the next call.
        """
        drop_rows(folder, self._saved - self.capacity)
        start = max(self._saved, self._total - self.capacity)
        if start < self._total:
            slots = torch.arange(start, self._total, device=self.device) % self.capacity
            rows = {key: column[slots].cpu() for key, column in self._rows.items()}
            write_rows(folder, rows, start, self._total)
        self._saved = self._total
        return {
            "total": self._total,
            "age": self._age,
            "priority": self._priority.clone(),
            "generator": self.generator.get_state(),
        }

    def load(self, folder: Path, state: Mapping[str, Any]) -> None:
        """The replay as it was when `save` returned `state`, bit for bit.

        Raises FoveaError when a file of rows that it needs is missing or damaged.
        """
        total: int = state["total"]
        kinds = {key: (column.dtype, column.shape[1:]) for key, column in self._rows.items()}
        for start, stop, rows in read_rows(folder, max(0, total - self.capacity), total, kinds):
            slots = torch.arange(start, stop, device=self.device) % self.capacity
            for key, column in self._rows.items():
                column[slots] = rows[key].to(self.device)
        self._total = self._saved = total
        self._age = state["age"]
        self._priority.copy_(state["priority"])
        self.generator.set_state(state["generator"].cpu())


def _stored(key: str, dtype: torch.dtype) -> torch.dtype:
    return dtype if key == "state" else _STORED.get(dtype, dtype)
