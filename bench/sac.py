"""One SAC update on stored features, against updates that encode their images each time.

ViSaRL's sizes: batch 128, hidden 1024, 256-d latents of a frozen ViT (4 layers, 4 heads, 8-pixel
patches of 64x64 images), mean over its tokens. No environment: both sample from their replay and
update. `python -m bench` compares with our own agent whose net is the frozen encoder, in two passes
an update. `python -m bench.sac` also compares with Stable-Baselines3's SAC, if it can be imported
(`pip install --no-deps stable-baselines3 cloudpickle` into a throw-away environment): the same
encoder as its features extractor, shared by actor and critics, which is the faster of its two
options. It also compares the bytes that the replays store a transition.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import results
from bench.rainbow import rate
from pretrain.encoder import Encoder, Obs
from pretrain.encoders import mae
from rl.agents.sac import Agent, Config
from rl.net import Net
from rl.nets import vector
from rl.replay import Replay
from rl.stack import FrameStack

ACTIONS, ROWS, ROUNDS = 4, 1_000, 3
SHAPE = (3, 64, 64)
Update = Callable[[], object]


def run() -> dict[str, object]:
    """Medians of updates/s on one thread and of the rounds' ratios (ours / encoding)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    frozen, vectors = encoder(), latents()
    figures: dict[str, object] = {
        "what": "SAC update, batch 128, hidden 1024, one thread, cached latents against images",
        "rounds": ROUNDS,
        "latents_bytes_a_transition": size(vectors),
    }
    figures |= compare("encoding", ours(vectors), encoding(frozen))
    torch.set_num_threads(threads)
    return figures


def compare(name: str, own: Update, peer: Update) -> dict[str, float]:
    """Medians over interleaved rounds."""
    own(), peer()  # the warm-up
    rounds = [(rate(own, 10), rate(peer, 1)) for _ in range(ROUNDS)]
    return {
        "ours_per_second": statistics.median(mine for mine, _ in rounds),
        f"{name}_per_second": statistics.median(theirs for _, theirs in rounds),
        f"{name}_ratio": statistics.median(mine / theirs for mine, theirs in rounds),
    }


def encoder() -> Encoder:
    """A frozen ViT of MultiMAE's size, with all its tokens."""
    config = mae.Config(patch=8, dim=256, depth=4, heads=4)
    return mae.Pretraining(config, SHAPE).encoder(mae.Features(select="all"))


def _replay(example: Obs, frame: Callable[[], Obs]) -> Replay:
    """Episodes of 500 random frames, truncated."""
    replay = Replay(
        example, capacity=ROWS, stack=1, steps=1, gamma=0.99, priority_exponent=0.0, seed=0,
        action_size=ACTIONS,
    )  # fmt: skip
    random = np.random.default_rng(0)
    for row in range(ROWS):
        cut = row % 500 == 499
        action = random.uniform(-1, 1, ACTIONS).astype(np.float32)
        replay.add(
            frame(), action, random.random(), terminated=False, truncated=cut,
            final=frame() if cut else None,
        )  # fmt: skip
    return replay


def latents() -> Replay:
    """Replay of one pooled token a frame, as Fovea stores it."""
    generator = torch.Generator().manual_seed(0)

    def frame() -> Obs:
        x = torch.randn(1, 1, 256, generator=generator)
        return {"x": x, "mask": torch.ones(1, 1).bool(), "pos": torch.zeros(1, 1).long()}

    return _replay(frame(), frame)


def size(replay: Replay) -> float:
    """Bytes a row, without the columns that are stored once."""
    columns = [*replay._rows.values(), replay._priority]
    return sum(column.nbytes for column in columns) / (replay.capacity + 1)


def _updates(net: Net, example: Obs, replay: Replay) -> Update:
    core = FrameStack(net, 1, example)
    agent = Agent(Config(), core, actions=ACTIONS, seed=0, device="cpu")
    return lambda: agent.update(replay.sample(agent.config.batch_size, 1.0))


def ours(replay: Replay) -> Update:
    """Sampling and update on cached latents."""
    example = {"x": torch.zeros(1, 1, 256)}
    return _updates(vector.Net(vector.Config(), example, 1), example, replay)


class Encoding(Net):
    """A frozen encoder inside the agent: image (B, 1, C, H, W) to its mean token (B, 256)."""

    def __init__(self, frozen: Encoder) -> None:
        super().__init__()
        self.encoder, self.width = frozen, 256

    @torch.no_grad()
    def forward(self, stack: Obs) -> tuple[Tensor, dict[str, Tensor]]:
        """No extras."""
        return self.encoder(stack["image"][:, 0])["x"].mean(1), {}


def _image(random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return random.integers(256, size=SHAPE, dtype=np.uint8)


def encoding(frozen: Encoder) -> Update:
    """The same agent on images in replay."""
    random = np.random.default_rng(0)

    def frame() -> Obs:
        return {"image": torch.from_numpy(_image(random))[None]}

    return _updates(Encoding(frozen), frame(), _replay(frame(), frame))


def stable_baselines(frozen: Encoder) -> tuple[Update, float]:
    """Its `train(1)`, which samples and updates once, and the bytes of its replay a transition."""
    import gymnasium

    # By name: it is needed only for this comparison.
    library: Any = importlib.import_module("stable_baselines3")
    layers: Any = importlib.import_module("stable_baselines3.common.torch_layers")
    logger: Any = importlib.import_module("stable_baselines3.common.logger")

    class Frozen(layers.BaseFeaturesExtractor):  # type: ignore[misc]  # Any: it may be missing
        def __init__(self, space: Any) -> None:
            super().__init__(space, features_dim=256)

        @torch.no_grad()
        def forward(self, image: Tensor) -> Tensor:
            return frozen(image.to(torch.uint8))["x"].mean(1)

    class Blank(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(0, 255, SHAPE, np.uint8)
        action_space = gymnasium.spaces.Box(-1, 1, (ACTIONS,), np.float32)

    options = {
        "features_extractor_class": Frozen,
        "share_features_extractor": True,
        "normalize_images": False,
        "net_arch": [1024, 1024],
    }
    model = library.SAC(
        "CnnPolicy", Blank(), learning_rate=1e-4, buffer_size=ROWS, batch_size=128, tau=0.005,
        target_update_interval=2, policy_kwargs=options, seed=0, device="cpu",
    )  # fmt: skip
    model.set_logger(logger.configure(None, []))
    buffer, random = model.replay_buffer, np.random.default_rng(0)
    for _ in range(ROWS):
        now, after, action = _image(random), _image(random), random.uniform(-1, 1, ACTIONS)
        buffer.add(now, after, action, np.array(random.random()), np.array(False), [{}])
    arrays = [value for value in vars(buffer).values() if isinstance(value, np.ndarray)]
    return lambda: model.train(1, batch_size=128), sum(a.nbytes for a in arrays) / ROWS


def main() -> None:
    """The command line."""
    for key, value in run().items():
        print(key, value)
    if importlib.util.find_spec("stable_baselines3") is None:
        print("stable_baselines3: not installed, so not compared")
        return
    torch.set_num_threads(1)
    vectors = latents()
    update, peer_bytes = stable_baselines(encoder())
    figures = {
        "peer_bytes_a_transition": peer_bytes,
        "bytes_ratio": peer_bytes / size(vectors),
        **compare("peer", ours(vectors), update),
    }
    for key, value in figures.items():
        print(key, value)
    results.write(results.PEERS, {"Stable-Baselines3": figures})


if __name__ == "__main__":
    main()
