"""Frame stacking: the memory of nets without one of their own (Mnih et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.encoder import Obs
from pretrain.modules.precision import Precision
from rl.net import Auxiliary, Core, Extras, Net, State


class FrameStack(Core):
    """A core of any net: the state is the last `depth` frames, oldest first, every key (B, S, ...).

    Frames before an episode's first are zero, as in replay, which makes its own stacks.
    """

    def __init__(self, net: Net, depth: int, example: Obs) -> None:
        """`example` is one frame's Obs (any batch size)."""
        super().__init__()
        self.net, self.depth, self.width = net, depth, net.width
        self.attends, self.masks, self.has_auxiliary = net.attends, net.masks, net.has_auxiliary
        for key, value in example.items():  # buffers, so that they follow the module's device
            blank = torch.zeros(1, depth, *value.shape[1:], dtype=value.dtype, device=value.device)
            self.register_buffer(f"blank_{key}", blank, persistent=False)
        self.keys = tuple(example)

    def initial(self, batch: int) -> State:
        """No frames yet."""
        blanks = {key: self.get_buffer(f"blank_{key}") for key in self.keys}
        return {key: blank.expand(batch, *blank.shape[1:]) for key, blank in blanks.items()}

    def auxiliary(self, precision: Precision, seed: int) -> Auxiliary:
        """The net's."""
        return self.net.auxiliary(precision, seed)

    def on_image(self, attention: Tensor, size: tuple[int, int]) -> Tensor:
        """The net's."""
        return self.net.on_image(attention, size)

    def uniform(self, extras: Extras) -> Extras:
        """The net's."""
        return self.net.uniform(extras)

    def forward(self, obs: Obs, state: State, first: Tensor) -> tuple[Tensor, State, Extras]:
        """Stack frame by frame, then apply the net to all T x B stacks at once."""
        stacks = []
        for step, begins in enumerate(first):
            state = push({key: value[step] for key, value in obs.items()}, state, begins)
            stacks.append(state)
        if len(stacks) == 1:  # acting: no copy
            features, extras = self.net(state)
        else:
            features, extras = self.net({k: torch.cat([s[k] for s in stacks]) for k in state})
        shape = first.shape
        return (
            features.unflatten(0, shape),
            state,
            {key: value.unflatten(0, shape) for key, value in extras.items()},
        )

    def split_steps(self, obs: Obs, state: State, first: Tensor) -> tuple[Obs, State, Tensor]:
        """T steps of B environments as T·B sequences of one step, each with the state before it.

        Every key (T, B, ...) and `first` (T, B) -> (1, T·B, ...) and (1, T·B); the state's keys
        become (T·B, S, ...). So steps can be sampled one by one, in any order.
        """
        states = []
        for step, begins in enumerate(first):
            states.append(state)
            state = push({key: value[step] for key, value in obs.items()}, state, begins)
        return (
            {key: value.flatten(0, 1)[None] for key, value in obs.items()},
            {key: torch.cat([each[key] for each in states]) for key in state},
            first.flatten()[None],
        )


def push(obs: Obs, stack: State, first: Tensor) -> State:
    """The stack after one more frame: every key (B, S, ...), zeros before an episode."""
    result: State = {}
    for key, value in obs.items():
        same = ~first.view(-1, *[1] * value.dim())
        result[key] = torch.cat([stack[key][:, 1:] * same, value[:, None]], dim=1)
    return result
