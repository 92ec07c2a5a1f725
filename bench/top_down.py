"""S3TA's network beside a plain form of the same arithmetic: milliseconds a frame, one thread.

The plain form goes frame by frame as the paper describes it: convolutions of one frame, the basis
copied beside keys and values, all in float32 and in torch's default layout. Forward and backward of
10 steps of 8 environments at 210×160×3, the memory of one group of IMPALA's; interleaved rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.encoder import Obs
from pretrain.modules.precision import Precision, autocast
from rl.net import State
from rl.nets.top_down import Config, Net
from rl.recurrent import last_step

ROUNDS, STEPS, ENVIRONMENTS, ACTIONS = 5, 10, 8, 18
PADS = ((2, 2, 3, 3), (1, 1, 1, 2))  # SAME, at 210×160: left, right, top, bottom


def run() -> dict[str, Any]:
    """Medians of milliseconds a frame and of the ratios to the plain form."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = STEPS, ENVIRONMENTS
    obs = {
        "image": torch.randint(0, 256, (*shape, 3, 210, 160), dtype=torch.uint8),
        "action": torch.randint(ACTIONS, shape),
        "reward": torch.randn(shape),
    }
    first = torch.rand(shape) < 0.02
    net = Net(Config(), {"image": obs["image"][0]}, ACTIONS)
    forms = {
        "plain": partial(plain, net),
        "float32": partial(ours, net, "float32"),
        "auto": partial(ours, net, "auto"),
    }
    features = {name: form(obs, net.initial(ENVIRONMENTS), first) for name, form in forms.items()}
    torch.testing.assert_close(features["float32"], features["plain"], atol=1e-4, rtol=1e-3)
    rounds = [
        {name: milliseconds(form, net, obs, first) for name, form in forms.items()}
        for _ in range(ROUNDS)
    ]
    medians = {f"{name}_ms": statistics.median(one[name] for one in rounds) for name in forms}
    for name in ("float32", "auto"):
        medians[f"{name}_ratio"] = statistics.median(one["plain"] / one[name] for one in rounds)
    return medians


def milliseconds(
    form: Callable[[Obs, State, Tensor], Tensor], net: Net, obs: Obs, first: Tensor
) -> float:
    """CPU milliseconds a frame of forward and backward."""
    start = time.process_time()
    loss = form(obs, net.initial(ENVIRONMENTS), first).square().mean()
    torch.autograd.backward(loss)
    net.zero_grad()
    return 1e3 * (time.process_time() - start) / first.numel()


def ours(net: Net, precision: Precision, obs: Obs, state: State, first: Tensor) -> Tensor:
    """The network itself."""
    with autocast(precision, torch.device("cpu")):
        features: Tensor = net(obs, state, first)[0]
    return features


def plain(net: Net, obs: Obs, state: State, first: Tensor) -> Tensor:
    """Equations 1 to 6, one frame after another."""
    vision, vision_cell = state["vision"], state["vision_cell"]
    memory, cell = state["memory"], state["memory_cell"]
    last, outputs = last_step(obs, first, ACTIONS), []
    layers = [layer for layer in net.convolutions if isinstance(layer, nn.Conv2d)]
    for t, begins in enumerate(first):
        same = (~begins).float()
        vision, vision_cell = (part * same[:, None, None, None] for part in (vision, vision_cell))
        memory, cell = memory * same[:, None], cell * same[:, None]
        x = obs["image"][t].float() / 255
        for layer, pads in zip(layers, PADS, strict=True):
            x = F.conv2d(F.pad(x, pads), layer.weight, layer.bias, layer.stride).relu()
        i, f, g, o = net.vision.gates(torch.cat([x, vision], dim=1)).chunk(4, dim=1)
        vision_cell = f.sigmoid() * vision_cell + i.sigmoid() * g.tanh()
        vision = o.sigmoid() * vision_cell.tanh()
        basis = net.basis.expand(len(x), -1, -1)
        keys = torch.cat([vision[:, :8].flatten(2), basis], dim=1)
        values = torch.cat([vision[:, 8:].flatten(2), basis], dim=1)
        query = net.query(memory).view(len(x), net.heads, -1)
        answer = (query @ keys).softmax(-1) @ values.mT
        inputs = torch.cat([answer.flatten(1), query.flatten(1), last[t]], dim=1)
        memory, cell = net.memory(net.process(inputs).relu(), (memory, cell))
        outputs.append(net.output(memory).relu())
    return torch.stack(outputs)


if __name__ == "__main__":
    print(run())
