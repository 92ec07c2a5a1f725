"""Whole episodes of a finished policy: many to evaluate it, or one to look at.

SPIRL, appendix B.3: full episodes (no life-loss ends), each with a seed of its own, noise off, and
a random action with probability ε.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from gymnasium import Env
from numpy.typing import NDArray

from datasets import envs
from datasets.errors import UnstableError
from pretrain.encoder import Obs
from rl.actor import Action, Actor, random_action
from rl.net import Extras
from rl.policy import Policy

POOL = 16  # environments at a time
Shown = tuple[NDArray[np.uint8], Mapping[str, Any]]  # an image and its info


class Scores(TypedDict):
    """Results of whole episodes, in the order of their seeds.

    Raw returns; lengths in agent steps; successes, of environments that report them. Episodes whose
    simulation became unstable ended there and count as they stood: `unstable` is their number.
    """

    returns: list[float]
    lengths: list[int]
    successes: NotRequired[list[bool]]
    unstable: NotRequired[int]


@dataclass(frozen=True)
class EpisodeFrame:
    """One step of a recorded episode: the observation, and where the policy attended.

    `score` is the raw return before the step. `selected` (K,) are the row-major indices of the
    patches that the encoder selects, `attention` (K,) the policy's weight on each, averaged over
    its heads; None where there are no patches or no attention. `saliency` is the encoder's own map,
    if it makes one.
    """

    image: NDArray[np.uint8]  # (H, W, 3)
    score: float
    step: int
    selected: NDArray[np.int64] | None = None
    attention: NDArray[np.float32] | None = None
    saliency: NDArray[np.float32] | None = None  # (H, W) from 0 to 1


class Player:
    """One evaluation episode: its environment, and its generator of random actions."""

    def __init__(self, env: str, seed: int, index: int, *, rendered: bool) -> None:
        self.index = index
        self.environment: Env[Any, Any] = envs.single(env, seed=seed, index=index, images=rendered)
        # [seed, index] itself is the environment's, which samples the no-ops from it.
        self.random = np.random.default_rng([seed, index, 1])
        self.shown: Shown = self.environment.reset()
        self.end: Mapping[str, Any] | None = None  # the last info, once it is over
        self.unstable = False

    def choose(self, action: Action | None, epsilon: float) -> Action:
        """The policy's action, or with probability ε a random one; always where it has none."""
        if self.random.random() < epsilon or action is None:
            return random_action(self.environment.action_space, self.random)
        return action

    def step(self, action: Action) -> float:
        """The reward of an action."""
        try:
            image, reward, terminated, truncated, info = self.environment.step(action)
        except UnstableError as error:
            self.end, self.unstable = error.info, True
            return 0.0
        self.shown = image, info
        if terminated or truncated:
            self.end = info
        return float(reward)


def evaluate(
    policy: Policy, *, games: int, seed: int, epsilon: float, progress: Callable[[int], None]
) -> Scores:
    """Raw returns and lengths of `games` full episodes; `progress` is called at each one's end."""
    return _play(policy.spec.env, policy, games, seed, epsilon, progress)


def evaluate_random(env: str, *, games: int, seed: int, progress: Callable[[int], None]) -> Scores:
    """The same episodes of the uniform random policy."""
    return _play(env, None, games, seed, 1.0, progress)


def _play(
    env: str,
    policy: Policy | None,
    games: int,
    seed: int,
    epsilon: float,
    progress: Callable[[int], None],
) -> Scores:
    """Episodes side by side, at most POOL: where one ends the next one takes its place."""
    rendered = policy is not None and policy.encoder.info is None
    waiting = iter(range(games))
    players = [Player(env, seed, index, rendered=rendered) for index in islice(waiting, POOL)]
    actor = _begin(policy, players) if policy else None
    finished: list[Player] = []
    while players:
        choices = actor.act(explore=False)[0] if actor else [None] * len(players)
        actions = [p.choose(choice, epsilon) for p, choice in zip(players, choices, strict=True)]
        rewards = [p.step(action) for p, action in zip(players, actions, strict=True)]
        ended = np.array([player.end is not None for player in players])
        stays = np.ones(len(players), np.bool_)
        for row in np.flatnonzero(ended):
            players[row].environment.close()
            finished.append(players[row])
            progress(1)
            index = next(waiting, None)
            stays[row] = index is not None
            if index is not None:
                players[row] = Player(env, seed, index, rendered=rendered)
        players = [player for player, going in zip(players, stays, strict=True) if going]
        if actor and players:
            actor.keep(stays)
            shown = _shown(actor.policy, players)
            action, reward = np.array(actions)[stays], np.array(rewards)[stays]
            actor.observe(*shown, action=action, reward=reward, first=ended[stays])
    return _scores(sorted(finished, key=lambda player: player.index))


def _begin(policy: Policy, players: Sequence[Player]) -> Actor:
    actor = Actor(policy, len(players))
    actor.begin(*_shown(policy, players))
    return actor


def _shown(policy: Policy, players: Sequence[Player]) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """The newest images (N, H, W, 3), and of the infos what the encoder reads."""
    images = np.stack([player.shown[0] for player in players])
    name = policy.encoder.info
    infos = {name: np.stack([player.shown[1][name] for player in players])} if name else {}
    return images, infos


def _scores(finished: Sequence[Player]) -> Scores:
    ends = [player.end or {} for player in finished]
    scores = Scores(
        returns=[end["game_return"] for end in ends], lengths=[end["game_length"] for end in ends]
    )
    if all("game_success" in end for end in ends):
        scores["successes"] = [bool(end["game_success"]) for end in ends]
    if unstable := sum(player.unstable for player in finished):
        scores["unstable"] = unstable
    return scores


def record(policy: Policy, *, seed: int, epsilon: float, limit: int = 1_800) -> list[EpisodeFrame]:
    """The first episode of `evaluate` with the same seed, step by step, at most `limit` steps."""
    frames: list[EpisodeFrame] = []
    player = Player(policy.spec.env, seed, 0, rendered=True)
    with closing(player.environment):
        actor, score = _begin(policy, [player]), 0.0
        while player.end is None and len(frames) < limit:
            choices, extras = actor.act(explore=False)
            action = player.choose(choices[0], epsilon)
            image = player.shown[0]
            selected, attention = _looked_at(policy, actor.obs, extras)
            saliency = None if selected is not None else _saliency(policy, image)
            frames.append(EpisodeFrame(image, score, len(frames), selected, attention, saliency))
            reward = player.step(action)
            score += reward
            if player.end is None:
                shown, first = _shown(policy, [player]), np.zeros(1, np.bool_)
                actor.observe(
                    *shown, action=np.array([action]), reward=np.array([reward]), first=first
                )
    return frames


@torch.no_grad()
def _saliency(policy: Policy, image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """The map (H, W) of the encoder's own SaliencySource of an image, if the policy gets it."""
    if not policy.encoder.uses_saliency:
        return None
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].to(policy.agent.device)
    saliency = policy.encoder.saliency_map(batch)
    return None if saliency is None else saliency[0, 0].cpu().numpy()


def _looked_at(policy: Policy, obs: Obs, extras: Extras) -> tuple[Any, Any]:
    """Selected patches (K,) and the attention on them (K,) of the first row, without padding.

    Of an encoder that selects patches of the frame; other tokens have no place in it to mark.
    """
    if not policy.encoder.selects:
        return None, None
    mask = obs["mask"][0]
    selected = obs["pos"][0][mask].cpu().numpy()
    if "attention" not in extras:
        return selected, None
    return selected, extras["attention"][0].mean(0)[mask].cpu().numpy()
