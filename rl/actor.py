"""A policy in N environments side by side: the one place where frames are encoded and remembered.

Training, evaluation, videos and labelling by a policy all act through it. An environment that ends
an episode shows the next one's first frame at once (SAME_STEP autoreset), so each row of a batch
says by `first` whether its frame begins one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete, Space
from numpy.typing import NDArray

from datasets.errors import FoveaError
from pretrain.encoder import Obs
from pretrain.images import channels_first
from rl.net import Extras
from rl.policy import Policy

Action = NDArray[np.int64] | NDArray[np.float32]  # (N,), or (N, A)
Images = NDArray[np.uint8]  # (N, H, W, C)
Infos = Mapping[str, Any]  # name -> (N, ...), as gymnasium's vector environments have them


class Actor:
    """Acts on the newest frames, `obs`, given those before: `state`, reset where `first`.

    A core that `reads` the last action or reward finds them in `obs`, zero before an episode's
    first action.
    """

    def __init__(self, policy: Policy, count: int = 1) -> None:
        self.policy, self.agent = policy, policy.agent
        self.device = policy.agent.device
        self.obs: Obs = {}
        self.state = self.agent.core.initial(count)
        self.first = torch.ones(count, dtype=torch.bool, device=self.device)
        self.last = self._nothing_done(count)

    def _nothing_done(self, count: int) -> Obs:
        action = torch.zeros(count, dtype=torch.int64, device=self.device)
        if self.policy.continuous:
            action = torch.zeros(count, self.policy.spec.actions, device=self.device)
        return {"action": action, "reward": torch.zeros(count, device=self.device)}

    def begin(self, images: Images, infos: Infos) -> None:
        """The first frames of N episodes."""
        self.obs = self._observation(images, infos)

    def act(self, *, explore: bool) -> tuple[Action, Extras]:
        """Actions for the newest frames, and the network's extras, (N, ...) each."""
        action, self.state, extras = self.agent.act(
            self.obs, self.state, self.first, explore=explore
        )
        return action.cpu().numpy(), extras

    def observe(
        self,
        images: Images,
        infos: Infos,
        *,
        action: NDArray[Any],
        reward: NDArray[np.floating[Any]],
        first: NDArray[np.bool_],
    ) -> None:
        """What N environments show after an action; rows that are `first` show a new episode."""
        self.first = torch.from_numpy(first).to(self.device)
        if self.agent.core.reads:
            done = {"action": torch.from_numpy(action), "reward": torch.from_numpy(reward).float()}
            for key, value in done.items():
                value = value.to(self.device)
                same = ~self.first.view(-1, *[1] * (value.dim() - 1))
                self.last[key] = torch.where(same, value, 0)
        self.obs = self._observation(images, infos)

    def _observation(self, images: Images, infos: Infos) -> Obs:
        return self.encode(images, infos) | {key: self.last[key] for key in self.agent.core.reads}

    @torch.no_grad()
    def encode(self, images: Images, infos: Infos) -> Obs:
        """Features (N, ...) of frames.

        Raises FoveaError where the encoder was made for another size.
        """
        encoder = self.policy.encoder
        if encoder.info is not None:
            state = np.asarray(infos[encoder.info], np.float32)
            return encoder(torch.from_numpy(state).to(self.device))
        image = channels_first(images).contiguous().to(self.device)
        if encoder.image_shape not in (None, tuple(image.shape[1:])):
            raise FoveaError(
                f"encoder: made for images {encoder.image_shape}, but "
                f"{self.policy.spec.env} shows {tuple(image.shape[1:])}; use an encoder pretrained "
                "on frames of that size"
            )
        return encoder(image)

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Forget the environments that are not in `rows` (N,)."""
        mask = torch.from_numpy(rows).to(self.device)
        self.state, self.last, self.obs = (
            {key: value[mask] for key, value in part.items()}
            for part in (self.state, self.last, self.obs)
        )
        self.first = self.first[mask]

    def finite(self) -> bool:
        """Whether all newest features are finite numbers."""
        return all(bool(value.isfinite().all()) for value in self.obs.values())

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next action depends on, beside the agent."""
        return {"obs": self.obs, "state": self.state, "first": self.first, "last": self.last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, bit for bit."""
        self.obs, self.state = state["obs"], state["state"]
        self.first, self.last = state["first"], state["last"]


def random_action(space: Space[Any], generator: np.random.Generator) -> Action:
    """A uniformly random action, () or (A,)."""
    if isinstance(space, Discrete):
        return np.asarray(generator.integers(int(space.n)))
    return generator.uniform(-1, 1, space.shape).astype(np.float32)
