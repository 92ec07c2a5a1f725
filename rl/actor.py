"""A policy in N parallel environments: the only place that encodes frames and carries memory.

Training, evaluation, videos and labelling by a policy all act through it. Where a step ends an
episode, the environment returns the next one's first frame (SAME_STEP autoreset). So `first` says
for each row of a batch whether its frame begins an episode.
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
Infos = Mapping[str, Any]  # name -> (N, ...), of gymnasium's vector environments


class Actor:
    """Acts on the newest frames `obs` and the memory `state`, which is reset where `first`.

    For a core that `reads` the last action or reward, these are in `obs`, zero at an episode's
    first frame.
    """

    def __init__(self, policy: Policy, count: int = 1) -> None:
        self.policy, self.agent = policy, policy.agent
        self.device = policy.agent.device
        self.obs: Obs = {}
        self.state = self.agent.core.initial(count)
        self.first = torch.ones(count, dtype=torch.bool, device=self.device)
        self.last = self._no_step(count)

    def _no_step(self, count: int) -> Obs:
        action = torch.zeros(count, dtype=torch.int64, device=self.device)
        if self.policy.continuous:
            action = torch.zeros(count, self.policy.spec.actions, device=self.device)
        return {"action": action, "reward": torch.zeros(count, device=self.device)}

    def begin(self, images: Images, infos: Infos) -> None:
        """Take the first frames of N episodes."""
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
        """Take the frames of N environments after an action; `first` rows begin an episode."""
        self.first = torch.from_numpy(first).to(self.device)
        if self.agent.core.reads:
            last = {"action": torch.from_numpy(action), "reward": torch.from_numpy(reward).float()}
            for key, value in last.items():
                value = value.to(self.device)
                same = ~self.first.view(-1, *[1] * (value.dim() - 1))
                self.last[key] = torch.where(same, value, 0)
        self.obs = self._observation(images, infos)

    def _observation(self, images: Images, infos: Infos) -> Obs:
        return self.encode(images, infos) | {key: self.last[key] for key in self.agent.core.reads}

    @torch.no_grad()
    def encode(self, images: Images, infos: Infos) -> Obs:
        """Features (N, ...) of frames, in float32 whatever the agent's precision.

        Raises FoveaError if the encoder is for images of another size.
        """
        with torch.autocast(self.device.type, enabled=False):
            return self._encode(images, infos)

    def _encode(self, images: Images, infos: Infos) -> Obs:
        encoder = self.policy.encoder
        if encoder.info is not None:
            state = np.asarray(infos[encoder.info], np.float32)
            return encoder(torch.from_numpy(state).to(self.device))
        image = channels_first(images).contiguous().to(self.device)
        if encoder.image_shape not in (None, tuple(image.shape[1:])):
            raise FoveaError(
                f"encoder: is for images {encoder.image_shape}, but "
                f"{self.policy.spec.env} has {tuple(image.shape[1:])}; use an encoder pretrained "
                "on frames of that size"
            )
        return encoder(image)

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Drop the environments that are not in `rows` (N,)."""
        mask = torch.from_numpy(rows).to(self.device)
        self.state, self.last, self.obs = (
            {key: value[mask] for key, value in part.items()}
            for part in (self.state, self.last, self.obs)
        )
        self.first = self.first[mask]

    def finite(self) -> bool:
        """Whether all features of the newest frames are finite."""
        return all(bool(value.isfinite().all()) for value in self.obs.values())

    def state_dict(self) -> dict[str, Any]:
        """All state that the next action depends on, except the agent's."""
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
