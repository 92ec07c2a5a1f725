"""Self-supervised attention trained online, on the frames that the agent observes.

Wu, Khetarpal and Precup (2021), eq. 4: L = L_RL + L_attention. The agent's mask generator Ψ is part
of an attention autoencoder (pretrain/modules/attention_autoencoder.py), which reconstructs a target
frame from a source frame. A batch is one pair of frames of each environment, both from its last 60
steps. Schedule and hyperparameters are the released code's: from the agent's 17th update on, one
step of Adam (learning rate 10⁻³, gradients clipped to 0.5) for every five steps of a rollout.

Differs from the released code:
- Both frames of a pair are of the same episode, and each environment samples its own two steps.
  In the released code all environments share two steps, and an episode may have ended in between.
- All of the last 60 steps are sampled. In the released code one slot of the buffer is never written
  and another one never read; black frames, such as the unwritten slot's, are sampled again.
- A rollout of fewer than five steps has one step of Adam. In the released code it has none.

Φ, the decoder, Adam's state and the frames are in checkpoints only: acting does not need them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from pretrain.encoder import Obs
from pretrain.modules.attention_autoencoder import (
    AttentionAutoencoder,
    Mask,
    Shape,
    attention_loss,
)
from pretrain.modules.precision import Precision, autocast
from rl.fast.precision import scaled
from rl.net import Auxiliary

STEPS = 60  # of each environment in the buffer
WARM_UP = 16  # updates of the agent before the first step of Adam
INTERVAL = 5  # environment steps for each step of Adam
DELTA, SPARSITY = 0.01, 1e-3  # δ and λ_m (eq. 2 and 3), of means
LEARNING_RATE, GRADIENT_NORM = 1e-3, 0.5


class PairLoss(Auxiliary):
    """L_attention on pairs of frames: trains Ψ, Φ and the decoder."""

    def __init__(self, mask: Mask, image: Shape, *, precision: Precision, seed: int) -> None:
        """`mask` is the network's Ψ, on its device; `image` is (C, H, W)."""
        self.device = next(mask.parameters()).device
        self.model = AttentionAutoencoder(image)
        self.model.initialise(seed)
        # Channels last: a step takes 0.7 of the time on a CPU.
        cast(Any, self.model).to(self.device, memory_format=torch.channels_last)
        self.model.mask = mask
        self.trained_parameters = list(self.model.parameters())
        self.optimizer = torch.optim.Adam(self.trained_parameters, LEARNING_RATE, foreach=True)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.precision = precision
        self.updates = self.total = 0  # updates of the agent, and steps, so far
        self.frames = self.episode = torch.empty(0, device=self.device)  # ring buffers

    def update(self, obs: Obs, first: Tensor) -> dict[str, Tensor]:
        """Add the frames to the buffer, and take the rollout's steps of Adam.

        Scalars are means of the loss and of the mask; none before the first step, or if no two
        frames in the buffer are of the same episode.
        """
        self._store(obs["image"], first)
        self.updates += 1
        if self.updates <= WARM_UP:
            return {}
        pairs = partners(self.episode[: self.total])
        if not pairs.any():
            return {}
        count = max(1, len(first) // INTERVAL)
        logged = torch.stack([self._step(pairs) for _ in range(count)]).mean(0)
        return {"attention_loss": logged[0], "mask": logged[1]}

    def _store(self, image: Tensor, first: Tensor) -> None:
        """Add frames (T, N, C, H, W), and the numbers of their episodes, to the buffers."""
        if not self.total:
            self.frames = image.new_zeros(STEPS, *image.shape[1:])
            self.episode = torch.zeros(STEPS, first.shape[1], dtype=torch.int64, device=self.device)
        episode = self.episode[(self.total - 1) % STEPS] + first.cumsum(0)
        slots = (self.total + torch.arange(len(first), device=self.device))[-STEPS:] % STEPS
        self.frames[slots], self.episode[slots] = image[-STEPS:], episode[-STEPS:]
        self.total += len(first)

    def _step(self, pairs: Tensor) -> Tensor:
        """One step of Adam. Returns the loss and the mean of the mask."""
        environment, target, source = sample(pairs, self.generator)
        targets, sources = self.frames[target, environment], self.frames[source, environment]
        with autocast(self.precision, self.device):
            output = self.model(scaled(sources), scaled(targets)).float()
        loss = attention_loss(output, scaled(targets), delta=DELTA, sparsity=SPARSITY)
        self.optimizer.zero_grad()  # Ψ has the agent's gradients
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.trained_parameters, GRADIENT_NORM, foreach=True)
        self.optimizer.step()
        return torch.stack([loss.detach(), output.mask.detach().mean()])

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on, without Ψ: it is in the agent's state."""
        return {
            "features": self.model.features.state_dict(),
            "decoder": self.model.decoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "updates": self.updates,
            "total": self.total,
            "frames": self.frames,
            "episode": self.episode,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, bit for bit."""
        self.model.features.load_state_dict(state["features"])
        self.model.decoder.load_state_dict(state["decoder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.updates, self.total = state["updates"], state["total"]
        self.frames, self.episode = state["frames"], state["episode"]


def partners(episode: Tensor) -> Tensor:
    """Which two steps are a pair, (S, S, N) bool, given the episode numbers of all steps (S, N)."""
    same = episode[:, None] == episode
    return same & ~torch.eye(len(episode), dtype=torch.bool, device=episode.device)[..., None]


def sample(pairs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Environment, target step and source step, (n,) each, of the n environments with any pair.

    Targets are uniform over the steps with a partner, sources uniform over the target's partners.
    """
    has_partner = pairs.any(1).T  # (N, S)
    environment = has_partner.any(1).nonzero()[:, 0]
    target = torch.multinomial(has_partner[environment].float(), 1, generator=generator)[:, 0]
    weights = pairs[target, :, environment].float()
    return environment, target, torch.multinomial(weights, 1, generator=generator)[:, 0]
