"""Parts of networks with a memory: LSTMs that begin anew with an episode, and the last step.

Gates are those of Sonnet's LSTMs, with which IMPALA and S3TA were written: the forget gate's bias
begins at 1, and there are no peepholes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.encoder import Obs
from pretrain.modules.precision import Precision
from rl.net import Auxiliary, Core, Extras, State
from rl.stack import FrameStack

LAST_STEP = ("action", "reward")  # what `last_step` reads


class ConvLSTM(nn.Module):
    """An LSTM whose products are 3×3 convolutions (Shi et al. 2015, without peepholes).

    One convolution, of the input and the output before it, gives all four gates.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(inputs + channels, 4 * channels, 3, padding=1)
        self.channels = channels

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """One step: x (B, inputs, h, w), hidden and cell (B, channels, h, w) -> the new two."""
        gates = self.gates(torch.cat([x, hidden.to(x.dtype)], dim=1))
        enter, forget, new, leave = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        return leave.sigmoid() * cell.tanh(), cell


class Recurrent(Core):
    """An LSTM on the features of a stack of frames, the last action and the last reward.

    Its state is the stack's and its own: memory and memory_cell (B, units). It is in float32 even
    where training is in bfloat16.
    """

    reads = LAST_STEP

    def __init__(self, frames: FrameStack, units: int, actions: int) -> None:
        super().__init__()
        self.frames, self.actions, self.width = frames, actions, units
        self.attends, self.masks = frames.attends, frames.masks
        self.has_auxiliary = frames.has_auxiliary
        self.lstm = nn.LSTMCell(frames.width + actions + 1, units)
        self.lstm.apply(initialise)

    def initial(self, batch: int) -> State:
        """No frames, and zeros."""
        zeros = self.lstm.weight_ih.new_zeros(batch, self.width)
        return self.frames.initial(batch) | {"memory": zeros, "memory_cell": zeros}

    def auxiliary(self, precision: Precision, seed: int) -> Auxiliary:
        """The net's."""
        return self.frames.auxiliary(precision, seed)

    def on_image(self, attention: Tensor, size: tuple[int, int]) -> Tensor:
        """The net's."""
        return self.frames.on_image(attention, size)

    def forward(self, obs: Obs, state: State, first: Tensor) -> tuple[Tensor, State, Extras]:
        """The net on all T x B stacks at once, then the LSTM step by step."""
        keys = self.frames.keys
        frames, stack = ({key: each[key] for key in keys} for each in (obs, state))
        features, stack, extras = self.frames(frames, stack, first)
        with torch.autocast(features.device.type, enabled=False):
            x = torch.cat([features.float(), last_step(obs, first, self.actions)], dim=-1)
            memory, cell = state["memory"], state["memory_cell"]
            outputs, memory, cell = unroll(self.lstm, x, memory, cell, first)
        return outputs, stack | {"memory": memory, "memory_cell": cell}, extras


def unroll(
    lstm: nn.LSTMCell, x: Tensor, hidden: Tensor, cell: Tensor, first: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """T steps of an LSTM, reset where `first` (T, B): x (T, B, inputs) -> its outputs (T, B, units)
    and its state after them, (B, units) each.
    """
    outputs = []
    for step, begins in zip(x, first, strict=True):
        hidden, cell = lstm(step, (reset(hidden, begins), reset(cell, begins)))
        outputs.append(hidden)
    return torch.stack(outputs), hidden, cell


def reset(state: Tensor, first: Tensor) -> Tensor:
    """A memory (B, ...) with zeros in the rows that begin an episode, `first` (B,)."""
    return state * ~first.view(-1, *[1] * (state.dim() - 1))


def last_step(obs: Obs, first: Tensor, actions: int) -> Tensor:
    """The last action, one-hot, and the last reward within ±1: (T, B, actions + 1) float32.

    All are zero at an episode's first frame. Agents are trained with clipped rewards and evaluated
    with others, so the reward is clipped here too.
    """
    action = F.one_hot(obs["action"], actions).float()
    reward = obs["reward"].clamp(-1, 1)[..., None]
    return torch.cat([action, reward], dim=-1) * ~first[..., None]


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """Sonnet's initial weights, for `apply`: a normal distribution of σ = 1/√inputs, cut at 2σ, and
    zero biases, but 1 for forget gates.
    """
    if isinstance(module, nn.Linear | nn.Conv2d):
        _normal_(module.weight)
        if module.bias is not None:
            module.bias.zero_()
    elif isinstance(module, nn.LSTMCell):
        units = module.hidden_size
        joint = torch.empty(4 * units, module.input_size + units, device=module.weight_ih.device)
        _normal_(joint)
        module.weight_ih.copy_(joint[:, : module.input_size])
        module.weight_hh.copy_(joint[:, module.input_size :])
        module.bias_ih.zero_()
        module.bias_hh.zero_()
        module.bias_ih[units : 2 * units] = 1
    elif isinstance(module, ConvLSTM):  # after its convolution
        assert module.gates.bias is not None
        module.gates.bias[module.channels : 2 * module.channels] = 1


def _normal_(weight: Tensor) -> None:
    std = 1 / math.sqrt(weight[0].numel())
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
