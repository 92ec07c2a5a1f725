"""The deep residual network of IMPALA, feed-forward or with an LSTM: S3TA's two baselines.

Espeholt et al. (2018), Fig. 3, right: three sections of a 3×3 convolution, a 3×3 maximum of stride
2 and two residual blocks of two 3×3 convolutions, of 16, 32 and 32 channels; ReLU, Linear 256,
ReLU. `lstm` adds an LSTM of 256 units, which reads the last action and reward too (section 4 of
Mott et al. 2019). S3TA's frames are 210×160×3, one a state; the last map is 27×20×32.

SAME padding, bytes scaled to 0…1 and Sonnet's initial weights, as in IMPALA's code. IMPALA's own
embedding of text is for other environments and is left out.

Expect with the heads of rl/actor_critic.py on 210×160×3 at 18 actions 4,526,419 parameters, and
5,072,211 with the LSTM. S3TA's Table 1 has a median of 284.5 % and 45.0 % over the games.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from datasets.checked import Checked
from pretrain.encoder import Obs
from rl.fast.precision import scaled
from rl.net import Extras
from rl.net import Net as BaseNet
from rl.recurrent import initialise

KINDS = ("pixels",)  # of features that it takes
CHANNELS = (16, 32, 32)
BLOCKS = 2  # a section
WIDTH = 256  # of the last layer, and of the LSTM
SMALLEST = 8  # pixels a side, of which one position remains


@dataclass(frozen=True)
class Config(Checked):
    """Whether there is an LSTM on top."""

    lstm: bool = False


class Net(BaseNet):
    """image (B, S, C, H, W) uint8 -> (B, 256)."""

    def __init__(self, config: Config, example: Obs, stack: int) -> None:
        super().__init__()
        channels, height, width = example["image"].shape[1:]
        if min(height, width) < SMALLEST:
            raise ValueError(f"image: {height}x{width}, must be at least {SMALLEST}x{SMALLEST}")
        sections, inputs = [], stack * channels
        for outputs in CHANNELS:
            sections.append(Section(inputs, outputs))
            inputs, height, width = outputs, math.ceil(height / 2), math.ceil(width / 2)
        self.sections = nn.Sequential(*sections)
        self.project = nn.Linear(inputs * height * width, WIDTH)
        self.width = WIDTH
        self.lstm_units = WIDTH if config.lstm else 0
        self.apply(initialise)

    def forward(self, stack: Obs) -> tuple[Tensor, Extras]:
        """No extras: there is no attention."""
        features = self.sections(scaled(stack["image"].flatten(1, 2))).relu()
        return self.project(features.flatten(1)).relu(), {}


class Section(nn.Module):
    """A convolution, a maximum that halves both sides, and residual blocks."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(outputs) for _ in range(BLOCKS)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, ⌈h/2⌉, ⌈w/2⌉), padded as in TensorFlow's SAME.

        An even side has a pixel after it, an odd one on either side; none counts for a maximum.
        """
        x = self.convolution(x)
        padding = x.shape[2] % 2, x.shape[3] % 2
        out: Tensor = self.blocks(F.max_pool2d(x, 3, 2, padding, ceil_mode=True))
        return out


class Block(nn.Module):
    """x + convolution(ReLU(convolution(ReLU(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to the same."""
        inner: Tensor = self.second(self.first(x.relu()).relu())
        return x + inner
