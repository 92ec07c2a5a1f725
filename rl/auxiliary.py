"""Attention learned online, from the frames that an agent has just seen.

Wu, Khetarpal and Precup (2021), eq. 4: L = L_RL + L_attention. The agent's mask generator Ψ is part
of an attention autoencoder (pretrain/modules/attention_autoencoder.py) that reconstructs one frame
from another. Both frames are of the last 60 steps, and of the same environment; one pair of each
environment makes a batch. Schedule and numbers are the released code's: from the agent's 17th
update on, one step of Adam at 10⁻³ for every five steps of a rollout, gradients clipped to 0.5.

Where it differs from that code:
- The frames of a pair are of one episode, and each environment samples two steps of its own. There
  all environments take the same two steps, between which an episode may have ended.
- Every one of the 60 steps is sampled. There one slot is never written and another never read, and
  a frame that is black, as an unwritten one is, is sampled again.
- A rollout of fewer than five steps has one step of Adam; there it has none.

Φ, the decoder, Adam and the frames are the run's and not the policy's: acting needs none of them,
and only checkpoints hold them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.encoder import Obs
from pretrain.modules.attention_autoencoder import (
    AttentionAutoencoder,
    Mask,
    Reconstruction,
    Shape,
    attention_loss,
)
from rl.fast.precision import Precision, autocast, scaled
from rl.net import Auxiliary

STEPS = 60  # of each environment, whose frames are kept
WARM_UP = 16  # updates of the agent that no step follows
ROLLOUT = 5  # its steps for each step of Adam
DELTA, SPARSITY = 0.01, 1e-3  # δ and λ_m of means (eq. 2 and 3)
RATE, GRADIENT_NORM = 1e-3, 0.5


class PairLoss(Auxiliary):
    """L_attention of pairs of frames, in which Ψ, Φ and the decoder learn."""

    def __init__(self, mask: Mask, image: Shape, *, precision: Precision, seed: int) -> None:
        """`mask` is Ψ of a network, on the device where it is trained; `image` is (C, H, W)."""
        self.device = next(mask.parameters()).device
        self.model = AttentionAutoencoder(image)
        self.model.initialise(seed)
        self.model.to(self.device)
        self.model.mask = mask
        self.trained = list(self.model.parameters())
        self.optimizer = torch.optim.Adam(self.trained, RATE, foreach=True)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.precision = precision
        self.updates = self.total = 0  # of the agent; steps seen
        self.frames = self.episode = torch.empty(0, device=self.device)  # rings of STEPS

    def update(self, obs: Obs, first: Tensor) -> dict[str, Tensor]:
        """Keep the frames; one step of Adam for every five of theirs. Means of the loss and mask.

        Nothing is learned, and said, where no two of an episode's frames are kept.
        """
        self._keep(obs["image"], first)
        self.updates += 1
        if self.updates <= WARM_UP:
            return {}
        pairs = partners(self.episode[: self.total])
        if not pairs.any():
            return {}
        count = max(1, len(first) // ROLLOUT)
        logged = torch.stack([self._step(pairs) for _ in range(count)]).mean(0)
        return {"attention_loss": logged[0], "mask": logged[1]}

    def _keep(self, image: Tensor, first: Tensor) -> None:
        """Put frames (T, N, C, H, W) and the numbers of their episodes into the rings."""
        if not self.total:
            self.frames = image.new_zeros(STEPS, *image.shape[1:])
            self.episode = torch.zeros(STEPS, first.shape[1], dtype=torch.int64, device=self.device)
        episode = self.episode[(self.total - 1) % STEPS] + first.cumsum(0)
        slots = (self.total + torch.arange(len(first), device=self.device))[-STEPS:] % STEPS
        self.frames[slots], self.episode[slots] = image[-STEPS:], episode[-STEPS:]
        self.total += len(first)

    def _step(self, pairs: Tensor) -> Tensor:
        """One step of Adam; the loss and the mean mask."""
        row, target, source = sample(pairs, self.generator)
        after, before = self.frames[target, row], self.frames[source, row]
        with autocast(self.precision, self.device):
            output = self.model(scaled(before), scaled(after))
        output = Reconstruction(output.target.float(), output.auto.float(), output.mask.float())
        loss = attention_loss(output, scaled(after), delta=DELTA, sparsity=SPARSITY)
        self.optimizer.zero_grad()  # Ψ's are the agent's, else
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.trained, GRADIENT_NORM, foreach=True)
        self.optimizer.step()
        return torch.stack([loss.detach(), output.mask.detach().mean()])

    def state_dict(self) -> dict[str, Any]:
        """All but Ψ, which is the agent's."""
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
    """Which two steps make a pair, (S, S, N), of the numbers (S, N) of the episodes they are of."""
    same = episode[:, None] == episode
    return same & ~torch.eye(len(episode), dtype=torch.bool, device=episode.device)[..., None]


def sample(pairs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """An environment, a target and a source for each environment that has any pair.

    Targets are uniform over the steps with a partner, sources over the target's partners.
    """
    able = pairs.any(1).T.float()  # (N, S)
    row = able.any(1).nonzero()[:, 0]
    target = torch.multinomial(able[row], 1, generator=generator)[:, 0]
    source = torch.multinomial(pairs[target, :, row].float(), 1, generator=generator)[:, 0]
    return row, target, source
