"""S3TA: an agent that looks by queries from its memory ("soft, spatial, sequential, top-down").

Mott, Zoran, Chrzanowski, Wierstra and Rezende, "Towards Interpretable Reinforcement Learning Using
Attention Augmented Agents" (NeurIPS 2019), section 2 and Table 2. Two convolutions and a ConvLSTM
turn a frame of 210×160×3 into 27×20×128: keys of 8 channels and values of 120, each with the 64
channels of a fixed spatial basis. An LSTM's output of the step before gives four queries of 72; the
softmax of their products with the keys over all 540 cells weighs the values; the four answers, the
queries, the last action and the last reward pass through an MLP into the LSTM.

`queries` has the ablations of section 4.4:
- `fixed`: the queries are learned and do not depend on the memory;
- `key_norm`: no queries; a cell's logit is the L2 norm of its key. Four heads would be the same, so
  there is one. The basis has the same norm, 4, in every cell, so it carries no position here.

An evaluation may set `threshold`, for the hard attention of A.6; training has 0.

Where the paper is silent or contradicts itself:
- two convolutions (A.1 and Table 2), not three (section 4);
- SAME padding, which gives the sizes of Table 2; ReLU after convolutions and hidden layers; bytes
  scaled to 0…1; Sonnet's gates and initial weights (rl/recurrent.py);
- frequencies 1 to 4: with 0 to 3, 15 of the 64 channels would be zero everywhere;
- no scaling of the products by 1/√72 (eq. 3); the answers reach the LSTM through the MLP (A.1);
- the memory is zero at an episode's start, and so are the last action's one-hot and the reward.

There is no official code. Expect 2,278,661 parameters at 4 actions, 2,281,866 at 9 and 2,287,635 at
18, with the heads of rl/actor_critic.py; scores after 2e9 frames are the paper's Tables 3 and 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.checked import Checked, Count
from pretrain.encoder import Obs
from rl.fast.precision import scaled
from rl.net import Core, Extras, State
from rl.recurrent import LAST_STEP, ConvLSTM, initialise, last_step, reset

KINDS = ("pixels",)  # of features that it takes
CONVOLUTIONS = ((32, 8, 4), (64, 4, 2))  # channels, size and stride
KEYS, VALUES = 8, 120  # channels
FREQUENCIES = 4  # of the basis, for sine and cosine of each axis
BASIS = (2 * FREQUENCIES) ** 2  # channels
UNITS, WIDTH = 256, 128  # of the LSTM, and of the layer after it
CELL = 8  # pixels from cell to cell
SMALLEST = 33  # pixels a side: five cells, below which sin(π 4 i/h) is zero in all of them


@dataclass(frozen=True)
class Config(Checked):
    """Section 4.4 and Table 2."""

    queries: Literal["top_down", "fixed", "key_norm"] = "top_down"
    heads: Count = 4  # one for key_norm


class Net(Core):
    """image (T, B, C, H, W) uint8, action and reward (T, B) of the step before -> (T, B, 128).

    Extra: attention (T, B, heads, h, w), which sums up to 1 over the cells.
    """

    attends = True
    reads = LAST_STEP
    threshold: float = 0.0
    basis: Tensor  # (64, cells)

    def __init__(self, config: Config, example: Obs, actions: int) -> None:
        super().__init__()
        channels, *image = example["image"].shape[1:]
        if min(image) < SMALLEST:
            raise ValueError(
                f"image: {image[0]}x{image[1]}, must be at least {SMALLEST}x{SMALLEST}"
            )
        self.config, self.actions = config, actions
        layers: list[nn.Module] = []
        for outputs, size, stride in CONVOLUTIONS:
            layers += [SameConv2d(channels, outputs, size, stride), nn.ReLU()]
            channels = outputs
        self.convolutions = nn.Sequential(*layers)
        self.vision = ConvLSTM(channels, KEYS + VALUES)
        self.cells = cells(image[0]), cells(image[1])
        basis = spatial_basis(*self.cells).flatten(1)
        self.register_buffer("basis", basis, persistent=False)
        self.heads = 1 if config.queries == "key_norm" else config.heads
        query = 0 if config.queries == "key_norm" else KEYS + BASIS
        if config.queries == "top_down":
            self.query = mlp(UNITS, 256, 128, self.heads * query)
        if config.queries == "fixed":
            std = 1 / math.sqrt(query)
            self.fixed = nn.Parameter(torch.empty(self.heads, query).normal_(std=std))
        inputs = self.heads * (VALUES + BASIS + query) + actions + 1
        self.process = mlp(inputs, 512, UNITS)
        self.memory = nn.LSTMCell(UNITS, UNITS)
        self.output = nn.Linear(UNITS, WIDTH)
        self.width = WIDTH
        self.apply(initialise)

    def initial(self, batch: int) -> State:
        """Zeros."""
        maps, units = (batch, KEYS + VALUES, *self.cells), (batch, UNITS)
        shapes = {"vision": maps, "vision_cell": maps, "memory": units, "memory_cell": units}
        return {key: self.basis.new_zeros(shape) for key, shape in shapes.items()}

    def forward(self, obs: Obs, state: State, first: Tensor) -> tuple[Tensor, State, Extras]:
        """See T frames, then ask of them step by step.

        All after the vision is in float32 even where training is in bfloat16: it is 0.3 % of the
        products, and logits are sums of 72 terms before an exponential.
        """
        maps, vision, vision_cell = self.see(
            obs["image"], state["vision"], state["vision_cell"], first
        )
        memory, cell = state["memory"], state["memory_cell"]
        outputs, attention = [], []
        with torch.autocast(maps[0].device.type, enabled=False):
            inputs = last_step(obs, first, self.actions)
            for each, begins, last in zip(maps, first, inputs, strict=True):
                memory, cell = reset(memory, begins), reset(cell, begins)
                keys, values = each.flatten(2).float().split_with_sizes([KEYS, VALUES], dim=1)
                query = self.ask(memory)
                weights = self.attend(query, keys)
                answer = answers(weights, values, self.basis)
                parts = [answer.flatten(1), query.flatten(1), last]
                x = self.process(torch.cat(parts, dim=1)).relu()
                memory, cell = self.memory(x, (memory, cell))
                outputs.append(memory)
                attention.append(weights.view(*weights.shape[:2], *self.cells))
            features = self.output(torch.stack(outputs)).relu()
        after = {
            "vision": vision,
            "vision_cell": vision_cell,
            "memory": memory,
            "memory_cell": cell,
        }
        return features, after, {"attention": torch.stack(attention)}

    def see(
        self, image: Tensor, hidden: Tensor, cell: Tensor, first: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Eq. 1 over T frames: O of each, (B, 128, h, w), and the ConvLSTM's state after them.

        The convolutions do not depend on the memory, so they are of all frames at once.
        """
        x = self.convolutions(scaled(image.flatten(0, 1)))
        maps = []
        for each, begins in zip(x.unflatten(0, first.shape), first, strict=True):
            hidden, cell = self.vision(each, reset(hidden, begins), reset(cell, begins))
            maps.append(hidden)
        return maps, hidden, cell

    def ask(self, memory: Tensor) -> Tensor:
        """Eq. 2: the queries (B, heads, 72) of the LSTM's last output (B, 256)."""
        if self.config.queries == "key_norm":
            return memory.new_zeros(len(memory), self.heads, 0)
        if self.config.queries == "fixed":
            return self.fixed.expand(len(memory), -1, -1)
        query: Tensor = self.query(memory).unflatten(1, (self.heads, -1))
        return query

    def attend(self, query: Tensor, keys: Tensor) -> Tensor:
        """Eq. 3 and 4: weights (B, heads, cells) of queries on keys (B, 8, cells).

        Above a threshold of 0 they are hard (eq. 12 and 13).
        """
        if self.config.queries == "key_norm":
            # Of the whole key, basis included, whose squared norm is 16 everywhere.
            squared = keys.square().sum(1, keepdim=True) + self.basis.square().sum(0)
            return hard(squared.sqrt().softmax(-1), self.threshold)
        return hard(logits(query, keys, self.basis).softmax(-1), self.threshold)

    def on_image(self, attention: Tensor, size: tuple[int, int]) -> Tensor:
        """Each cell over the 8×8 pixels around the centre of its receptive field.

        The mean of the heads (B, K, h, w) -> (B, H, W), scaled to a maximum of 1.
        """
        grid = attention.mean(1)
        grid = grid / grid.amax((1, 2), keepdim=True)
        pixels = grid.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)
        top, left = offset(size[0]), offset(size[1])
        return pixels[:, top : top + size[0], left : left + size[1]]


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding, the odd pixel below or at the right."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, ⌈h/stride⌉, ⌈w/stride⌉)."""
        (top, bottom), (left, right) = (
            padding(size, kernel, stride)
            for size, kernel, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        )
        if (top, left) != (bottom, right):
            x = F.pad(x, (0, right - left, 0, bottom - top))
        return F.conv2d(x, self.weight, self.bias, self.stride, (top, left))


def logits(query: Tensor, keys: Tensor, basis: Tensor) -> Tensor:
    """Eq. 3: query (B, heads, 8 + 64), keys (B, 8, cells), basis (64, cells) -> (B, heads, cells).

    The basis is the same for all frames, so it is not copied beside each frame's keys.
    """
    what, where = query.split_with_sizes([KEYS, BASIS], dim=-1)
    return what @ keys + where @ basis


def hard(weights: Tensor, threshold: float) -> Tensor:
    """Eq. 12 and 13: weights (..., cells), of which those below `threshold` times their maximum are
    set to 0, divided by their sum. A threshold of 0 changes nothing.
    """
    if threshold == 0:
        return weights
    large = weights * (weights >= threshold * weights.amax(-1, keepdim=True))
    return large / large.sum(-1, keepdim=True)


def answers(weights: Tensor, values: Tensor, basis: Tensor) -> Tensor:
    """Eq. 5: weights (B, heads, cells), values (B, 120, cells), basis (64, cells) ->
    (B, heads, 120 + 64).
    """
    return torch.cat([weights @ values.mT, weights @ basis.T], dim=-1)


def spatial_basis(height: int, width: int) -> Tensor:
    """Eq. 7: S (64, height, width), all products of 4 cosines and 4 sines of the rows with those of
    the columns.
    """
    rows, columns = (_waves(size) for size in (height, width))
    return torch.einsum("ui,vj->uvij", rows, columns).flatten(0, 1)


def _waves(size: int) -> Tensor:
    """cos(π u i/size), then sin, for u of 1 to 4: (8, size)."""
    frequency = torch.arange(1, FREQUENCIES + 1, dtype=torch.float64)
    phase = math.pi * frequency[:, None] * torch.arange(size, dtype=torch.float64) / size
    return torch.cat([phase.cos(), phase.sin()]).float()


def mlp(inputs: int, *widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers[:-1])


def padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after a side of `size` for ⌈size/stride⌉ positions."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def cells(size: int) -> int:
    """Cells along a side of `size` pixels: 27 for 210, 20 for 160."""
    for _, _, stride in CONVOLUTIONS:
        size = math.ceil(size / stride)
    return size


def offset(size: int) -> int:
    """Pixels of the first cell that are outside the image: 1 for 210, 0 for 160.

    The first cell's receptive field begins where the paddings do, and has a side of 20.
    """
    (_, first, stride), (_, second, _) = CONVOLUTIONS
    field = first + stride * (second - 1)
    before = padding(size, first, stride)[0]
    before += stride * padding(math.ceil(size / stride), second, CONVOLUTIONS[1][2])[0]
    return before - (field - CELL) // 2
