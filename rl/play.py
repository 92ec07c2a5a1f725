"""Whole games with a finished policy: many side by side to evaluate it, or one to look at.

SPIRL, appendix B.3: full games (no life-loss ends), each with a seed of its own, noise off, and a
random action with probability ε.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from gymnasium.spaces import Discrete, Space
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from datasets import envs
from datasets.errors import FoveaError
from pretrain.encoder import Encoder, Obs
from rl.agent import Agent, State

Images = NDArray[np.uint8]  # (games, H, W, 3)
Actions = NDArray[np.int64]  # (games,)


class Scores(TypedDict):
    """What whole games came to, in the order of their seeds: raw returns, and agent steps."""

    returns: list[float]
    lengths: list[int]


@dataclass(frozen=True)
class Policy:
    """An agent on an encoder, on one device, in an environment such as "atari/Pong"."""

    env: str
    encoder: Encoder
    agent: Agent
    seed: int = 0  # of training: environment, warm-up and replay


@dataclass(frozen=True)
class GameFrame:
    """One step of a recorded game: what was seen and where the policy looked.

    `score` is the raw return before the step. `selected` (K,) are the row-major indices of the
    patches that the encoder kept, `attention` (K,) the policy's weight on each, averaged over its
    heads; None where there are no patches or no attention.
    """

    image: Images
    score: float
    step: int
    selected: NDArray[np.int64] | None = None
    attention: NDArray[np.float32] | None = None


@torch.no_grad()
def encode(policy: Policy, images: Images) -> Obs:
    """Frames (B, H, W, 3) as the environment gives them to the encoder's features.

    Raises FoveaError where the encoder was made for another size.
    """
    image = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(policy.agent.device)
    if tuple(image.shape[1:]) != tuple(policy.encoder.image_shape):
        raise FoveaError(
            f"encoder: made for images {tuple(policy.encoder.image_shape)}, but {policy.env} shows "
            f"{tuple(image.shape[1:])}; use an encoder pretrained on frames of that size"
        )
    return policy.encoder(image)


def action_count(environment: VectorEnv[Any, Any, Any]) -> int:
    """How many actions there are. Raises FoveaError where they are not discrete."""
    return _actions(environment.single_action_space)


def _actions(space: Space[Any]) -> int:
    if not isinstance(space, Discrete):
        raise FoveaError(f"env: its actions are {space}, this agent needs discrete ones")
    return int(space.n)


def evaluate(
    policy: Policy, *, games: int, seed: int, epsilon: float, progress: Callable[[int], None]
) -> Scores:
    """Raw returns and lengths of `games` full games; `progress` is told of each one's end."""
    return _play(policy.env, policy, games, seed, epsilon, progress)


def evaluate_random(env: str, *, games: int, seed: int, progress: Callable[[int], None]) -> Scores:
    """The same games played by the uniform random policy."""
    return _play(env, None, games, seed, 1.0, progress)


def record(policy: Policy, *, seed: int, epsilon: float, limit: int = 1_800) -> list[GameFrame]:
    """The first game of `evaluate` with the same seed, frame by frame, at most `limit` of them."""
    frames: list[GameFrame] = []
    with closing(envs.single(policy.env, seed=seed, index=0)) as environment:
        player = _Player(policy, 1, seed, epsilon, _actions(environment.action_space))
        image, _ = environment.reset()
        score, ended = 0.0, False
        while not ended and len(frames) < limit:
            action, obs, extras = player.act(image[None])
            selected, attention = _looked_at(obs, extras)
            frames.append(GameFrame(image, score, len(frames), selected, attention))
            image, reward, terminated, truncated, _ = environment.step(action[0])
            score += float(reward)
            ended = terminated or truncated
    return frames


def _play(
    env: str,
    policy: Policy | None,
    games: int,
    seed: int,
    epsilon: float,
    progress: Callable[[int], None],
) -> Scores:
    """One game in each of `games` environments; those that are over are left alone."""
    returns, lengths = [0.0] * games, [0] * games
    with ExitStack() as stack:
        environments = [
            stack.enter_context(closing(envs.single(env, seed=seed, index=game)))
            for game in range(games)
        ]
        player = _Player(policy, games, seed, epsilon, _actions(environments[0].action_space))
        going = {game: environments[game].reset()[0] for game in range(games)}  # to its frame
        while going:
            actions, _, _ = player.act(np.stack(list(going.values())))
            kept = np.ones(len(going), np.bool_)
            for row, (game, action) in enumerate(zip(list(going), actions, strict=True)):
                going[game], _, terminated, truncated, info = environments[game].step(action)
                if terminated or truncated:
                    returns[game], lengths[game] = info["game_return"], info["game_length"]
                    kept[row] = False
                    del going[game]
                    progress(1)
            player.keep(kept)
    return {"returns": returns, "lengths": lengths}


class _Player:
    """Plays games side by side; each draws its random actions from a generator of its own."""

    def __init__(
        self, policy: Policy | None, games: int, seed: int, epsilon: float, actions: int
    ) -> None:
        self.policy, self.epsilon, self.actions = policy, epsilon, actions
        # [seed, game] itself is the environment's, which draws the no-ops from it.
        self.random = [np.random.default_rng([seed, game, 1]) for game in range(games)]
        self.state: State | None = None

    def act(self, images: Images) -> tuple[Actions, Obs, dict[str, Tensor]]:
        """Actions (n,) for the frames of the games still going, and what they were chosen from."""
        chosen = np.zeros(len(images), np.int64)
        obs: Obs = {}
        extras: dict[str, Tensor] = {}
        if self.policy is not None:
            agent = self.policy.agent
            obs = encode(self.policy, images)
            first = torch.zeros(len(images), dtype=torch.bool, device=agent.device)
            action, self.state, extras = agent.act(obs, self.state, first, explore=False)
            chosen = action.cpu().numpy()
        for game, random in enumerate(self.random):
            if random.random() < self.epsilon:
                chosen[game] = random.integers(self.actions)
        return chosen, obs, extras

    def keep(self, going: NDArray[np.bool_]) -> None:
        """Forget the games that are over."""
        self.random = [random for random, kept in zip(self.random, going, strict=True) if kept]
        if self.state is not None:
            rows = torch.from_numpy(going)
            self.state = {k: v[rows.to(v.device)] for k, v in self.state.items()}


def _looked_at(obs: Obs, extras: dict[str, Tensor]) -> tuple[Any, Any]:
    """Selected patches (K,) and the attention on them (K,) of the first game, without padding."""
    if "pos" not in obs:
        return None, None
    mask = obs["mask"][0]
    selected = obs["pos"][0][mask].cpu().numpy()
    if "attention" not in extras:
        return selected, None
    return selected, extras["attention"][0].mean(0)[mask].cpu().numpy()
