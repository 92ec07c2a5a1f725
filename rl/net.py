"""What a net is to an agent."""

from __future__ import annotations

from torch import Tensor, nn

from pretrain.encoder import Obs


class Net(nn.Module):
    """Stacked features to one vector a state; `width` is that vector's length."""

    width: int
    gains_compiled = False  # whether compiling makes an update on a CPU faster

    def forward(self, stack: Obs) -> tuple[Tensor, dict[str, Tensor]]:
        """Every key (B, S, ...) to features (B, width) and extras of the newest frame."""
        raise NotImplementedError
