"""Whole games with a finished policy: many side by side to evaluate it, or one to look at.

SPIRL, appendix B.3: full games (no life-loss ends), each with a seed of its own, noise off, and a
random action with probability ε.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, Space
from numpy.typing import NDArray
from torch import Tensor

from datasets import envs
from datasets.errors import FoveaError, UnstableError
from pretrain.encoder import Encoder, Obs
from rl.agent import Agent, State
from rl.features import encode, sees

Shown = Sequence[tuple[NDArray[np.uint8], dict[str, Any]]]  # image and info of each game
Action = NDArray[np.int64] | NDArray[np.float32]  # () or (A,)


class Scores(TypedDict):
    """What whole games came to, in the order of their seeds: raw returns, agent steps, and whether
    they succeeded, where the environment can tell. Those whose simulation became unstable ended
    there and count as they stood; so many did.
    """

    returns: list[float]
    lengths: list[int]
    successes: NotRequired[list[bool]]
    unstable: NotRequired[int]


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
    heads; None where there are no patches or no attention. `saliency` is the encoder's own map, if
    it makes one.
    """

    image: NDArray[np.uint8]  # (H, W, 3)
    score: float
    step: int
    selected: NDArray[np.int64] | None = None
    attention: NDArray[np.float32] | None = None
    saliency: NDArray[np.float32] | None = None  # (H, W) from 0 to 1


def action_count(space: Space[Any]) -> int:
    """How many actions there are, or how many numbers one is made of.

    Raises FoveaError for actions that are neither discrete nor numbers from -1 to 1.
    """
    if isinstance(space, Discrete):
        return int(space.n)
    if (
        isinstance(space, Box)
        and space.shape
        and (space.low == -1).all()
        and (space.high == 1).all()
    ):
        return space.shape[0]
    raise FoveaError(f"env: its actions are {space}; agents need discrete ones, or within -1 and 1")


def draw(space: Space[Any], random: np.random.Generator) -> Action:
    """A uniformly random action."""
    if isinstance(space, Discrete):
        return np.asarray(random.integers(int(space.n)))
    return random.uniform(-1, 1, space.shape).astype(np.float32)


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
        player = _Player(policy, 1, seed, epsilon, environment.action_space)
        image, info = environment.reset()
        score, ended = 0.0, False
        while not ended and len(frames) < limit:
            action, obs, extras = player.act([(image, info)])
            selected, attention = _looked_at(policy, obs, extras)
            saliency = None if selected is not None else _saliency(policy, image)
            frames.append(GameFrame(image, score, len(frames), selected, attention, saliency))
            try:
                image, reward, terminated, truncated, info = environment.step(action[0])
            except UnstableError:
                break
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
    ends: dict[int, Mapping[str, Any]] = {}
    unstable = 0
    with ExitStack() as stack:
        look = policy is not None and sees(policy.encoder)
        environments = [
            stack.enter_context(closing(envs.single(env, seed=seed, index=game, draw=look)))
            for game in range(games)
        ]
        player = _Player(policy, games, seed, epsilon, environments[0].action_space)
        going = {game: environments[game].reset() for game in range(games)}  # to what it shows
        while going:
            actions, _, _ = player.act(list(going.values()))
            kept = np.ones(len(going), np.bool_)
            for row, (game, action) in enumerate(zip(list(going), actions, strict=True)):
                end: Mapping[str, Any] | None = None
                try:
                    image, _, terminated, truncated, info = environments[game].step(action)
                    going[game] = image, info
                    if terminated or truncated:
                        end = info
                except UnstableError as error:
                    end = error.info
                    unstable += 1
                if end is not None:
                    ends[game] = end
                    kept[row] = False
                    del going[game]
                    progress(1)
            player.keep(kept)
    told = [ends[game] for game in range(games)]
    scores = Scores(
        returns=[end["game_return"] for end in told], lengths=[end["game_length"] for end in told]
    )
    if all("game_success" in end for end in told):
        scores["successes"] = [bool(end["game_success"]) for end in told]
    if unstable:
        scores["unstable"] = unstable
    return scores


class _Player:
    """Plays games side by side; each draws its random actions from a generator of its own."""

    def __init__(
        self, policy: Policy | None, games: int, seed: int, epsilon: float, space: Space[Any]
    ) -> None:
        self.policy, self.epsilon, self.space = policy, epsilon, space
        # [seed, game] itself is the environment's, which draws the no-ops from it.
        self.random = [np.random.default_rng([seed, game, 1]) for game in range(games)]
        self.state: State | None = None

    def act(self, shown: Shown) -> tuple[Action, Obs, dict[str, Tensor]]:
        """Actions for what the games still going show, and what they were chosen from."""
        chosen = np.zeros((len(shown), *(self.space.shape or ())), self.space.dtype)
        obs: Obs = {}
        extras: dict[str, Tensor] = {}
        if self.policy is not None:
            obs = self._encode(self.policy, shown)
            device = self.policy.agent.device
            first = torch.zeros(len(shown), dtype=torch.bool, device=device)
            action, self.state, extras = self.policy.agent.act(
                obs, self.state, first, explore=False
            )
            chosen = action.cpu().numpy()
        for game, random in enumerate(self.random):
            if random.random() < self.epsilon:
                chosen[game] = draw(self.space, random)
        return chosen, obs, extras

    @staticmethod
    def _encode(policy: Policy, shown: Shown) -> Obs:
        images = np.stack([image for image, _ in shown])
        name = policy.encoder.info
        infos = {name: np.stack([info[name] for _, info in shown])} if name else {}
        return encode(policy.encoder, policy.env, images, infos, policy.agent.device)

    def keep(self, going: NDArray[np.bool_]) -> None:
        """Forget the games that are over."""
        self.random = [random for random, kept in zip(self.random, going, strict=True) if kept]
        if self.state is not None:
            rows = torch.from_numpy(going)
            self.state = {k: v[rows.to(v.device)] for k, v in self.state.items()}


@torch.no_grad()
def _saliency(policy: Policy, image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """What the encoder's own SaliencySource says of an image (H, W, 3), if the policy is told."""
    if not policy.encoder.uses_saliency:
        return None
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].to(policy.agent.device)
    found = policy.encoder.saliency_map(batch)
    return None if found is None else found[0, 0].cpu().numpy()


def _looked_at(policy: Policy, obs: Obs, extras: dict[str, Tensor]) -> tuple[Any, Any]:
    """Selected patches (K,) and the attention on them (K,) of the first game, without padding.

    Of an encoder that selects patches of the frame; other tokens have no place in it to draw at.
    """
    if not policy.encoder.selects:
        return None, None
    mask = obs["mask"][0]
    selected = obs["pos"][0][mask].cpu().numpy()
    if "attention" not in extras:
        return selected, None
    return selected, extras["attention"][0].mean(0)[mask].cpu().numpy()
