"""Rainbow's update in two widely used repositories against ours.

`python -m bench.peers FOLDER...`: each is a clone of Kaixhin/Rainbow or vwxyzjn/cleanrl; nothing of
them is copied here. Their code runs unchanged. Empty modules replace imports that are never called
here. Of CleanRL's script the classes are loaded, and the block of the training loop that samples
and updates is run. One thread, batch 32, 18 actions, the same random frames for all.

Kaixhin's data-efficient settings are those of ours: 4 frames of 84x84, two 5x5 convolutions of
stride 5, 256 units, 20 steps. CleanRL has the 8-4-3 convolutions of 2015 and 512 units, about 12
times the arithmetic, so its ratio does not compare like with like.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import statistics
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from bench import results
from bench.rainbow import ACTIONS, ROWS, rate
from pretrain.encoder import Obs
from rl import nets
from rl.agents.rainbow import Agent, Config
from rl.nets import data_efficient_cnn
from rl.replay import Replay
from rl.stack import FrameStack

SIDE, UPDATES, ROUNDS = 84, 5, 9
FRAMES = ROWS["pixels"]  # of the replay
Update = Callable[[], object]


def main() -> None:
    """The command line."""
    peers = {"Kaixhin": ("memory.py", kaixhin), "CleanRL": ("cleanrl/rainbow_atari.py", cleanrl)}
    torch.set_num_threads(1)
    figures = {}
    for folder in map(Path, sys.argv[1:]):
        for name, (file, make) in peers.items():
            if (folder / file).is_file():
                figures[name] = compare(ours(), make(folder))
    if not figures:
        sys.exit("usage: python -m bench.peers FOLDER..., clones of Kaixhin/Rainbow or cleanrl")
    print(json.dumps(figures, indent=1))
    results.write(results.PEERS, figures)


def compare(own: Update, peer: Update) -> dict[str, float]:
    """Medians over interleaved rounds."""
    own(), peer()  # the warm-up
    rounds = [(rate(own, UPDATES), rate(peer, UPDATES)) for _ in range(ROUNDS)]
    return {
        "ours_per_second": statistics.median(mine for mine, _ in rounds),
        "peer_per_second": statistics.median(theirs for _, theirs in rounds),
        "ratio": statistics.median(mine / theirs for mine, theirs in rounds),
    }


def ours() -> Update:
    """Our data-efficient CNN on frames of their size."""
    config = Config()
    one: Obs = {"image": torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8)}
    core = nets.make("data_efficient_cnn", data_efficient_cnn.Config(), one, config.stack, ACTIONS)
    assert isinstance(core, FrameStack)
    agent = Agent(config, core, actions=ACTIONS, seed=0, device="cpu")
    replay = Replay(
        one, capacity=FRAMES, stack=config.stack, steps=config.n_step, gamma=config.gamma,
        priority_exponent=config.priority_exponent, seed=0,
    )  # fmt: skip
    for row, frame in enumerate(_frames()):
        image = torch.from_numpy(frame)[None, None]
        over = row % 100 == 99
        replay.add({"image": image}, row % ACTIONS, row % 3 - 1, terminated=over, truncated=False)

    def update() -> None:
        batch = replay.sample(config.batch_size, 0.4)
        replay.reprioritise(batch.index, agent.update(batch)["priority"])

    return update


def kaixhin(folder: Path) -> Update:
    """`Agent.learn` with the settings of its README's data-efficient command."""
    with _importing_from(folder):
        agent_module, memory_module = (importlib.import_module(n) for n in ("agent", "memory"))
    arguments = Namespace(
        architecture="data-efficient", hidden_size=256, learning_rate=1e-4, multi_step=20,
        history_length=4, noisy_std=0.1, atoms=51, V_min=-10, V_max=10, model=None, discount=0.99,
        priority_exponent=0.5, priority_weight=0.4, adam_eps=1.5e-4, batch_size=32, norm_clip=10,
        device=torch.device("cpu"),
    )  # fmt: skip
    memory = memory_module.ReplayMemory(arguments, FRAMES)
    for row, frame in enumerate(_frames()):
        memory.append(
            torch.from_numpy(frame)[None] / 255, row % ACTIONS, row % 3 - 1, row % 100 == 99
        )
    agent = agent_module.Agent(arguments, SimpleNamespace(action_space=lambda: ACTIONS))

    def update() -> None:
        agent.reset_noise()
        agent.learn(memory)

    return update


def cleanrl(folder: Path) -> Update:
    """The block under `if global_step % args.train_frequency == 0` of its script."""
    path = folder / "cleanrl" / "rainbow_atari.py"
    script = ast.parse(path.read_text())
    *definitions, main_block = script.body
    for name in ("tyro", "cleanrl_utils", "cleanrl_utils.atari_wrappers"):
        sys.modules.setdefault(name, _Anything(name))
    module = ModuleType("rainbow_atari")
    module.__file__ = str(path)
    sys.modules["rainbow_atari"] = module  # where its dataclass looks itself up
    names: dict[str, Any] = vars(module)
    exec(compile(ast.Module(definitions, []), path, "exec"), names)
    (block,) = (
        node
        for node in ast.walk(main_block)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("train_frequency == 0")
    )
    args, device = names["Args"](n_step=20), torch.device("cpu")
    space = SimpleNamespace(single_action_space=SimpleNamespace(n=ACTIONS))
    network = names["NoisyDuelingDistributionalNetwork"]
    online, target = (network(space, args.n_atoms, args.v_min, args.v_max) for _ in range(2))
    buffer = names["PrioritizedReplayBuffer"](
        FRAMES, (4, SIDE, SIDE), device, args.n_step, args.gamma
    )
    frames = _frames()
    for row in range(FRAMES - 4):
        now, after = frames[row : row + 4], frames[row + 1 : row + 5]
        buffer.add(now, row % ACTIONS, row % 3 - 1, after, row % 100 == 99)
    optimizer = torch.optim.Adam(online.parameters(), lr=args.learning_rate, eps=1.5e-4)
    names |= {"args": args, "device": device, "rb": buffer, "optimizer": optimizer}
    names |= {"q_network": online, "target_network": target, "global_step": 1}  # no step that logs
    code = compile(ast.Module(block.body, []), path, "exec")
    return lambda: exec(code, names)


def _frames() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(256, size=(FRAMES, SIDE, SIDE), dtype=np.uint8)


class _Anything(ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> object:
        return object


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


if __name__ == "__main__":
    main()
