"""Full episodes of a trained policy: many for its evaluation, or one for a video.

SPIRL, appendix B.3: full episodes (a lost life does not end them), each with its own seed, noise
off, and a random action with probability ε. With `sample`, actions are sampled from an on-policy
agent's policy, as OpenAI Baselines and Nikulin et al. (2019) evaluate; else they are the most
probable ones. There a lost life empties the frame stack, as in training; here it does not.
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
from rl.watch import attention_map

POOL = 16  # environments at a time
Observation = tuple[NDArray[np.uint8], Mapping[str, Any]]  # an image and its info


class Scores(TypedDict):
    """Results of full episodes, in the order of their seeds.

    Raw returns; lengths in agent steps; successes, of environments that report them. An episode
    whose simulation became unstable ends there; `unstable` is the number of these.
    """

    returns: list[float]
    lengths: list[int]
    successes: NotRequired[list[bool]]
    unstable: NotRequired[int]


@dataclass(frozen=True)
class EpisodeFrame:
    """One step of a recorded episode: the observation, and the policy's attention.

    `score` is the raw return before the step. `selected` (K,) are the row-major indices of the
    patches that the encoder selects, `attention` (K,) is the policy's weight on each, averaged over
    its heads; both are None without patches or attention. `saliency` is the policy's attention as a
    map of the frame if it `attends` by one, else the encoder's map, if it has one.
    """

    image: NDArray[np.uint8]  # (H, W, 3)
    score: float
    step: int
    selected: NDArray[np.int64] | None = None
    attention: NDArray[np.float32] | None = None
    saliency: NDArray[np.float32] | None = None  # (H, W) from 0 to 1
    attends: bool = False


class Player:
    """One evaluation episode: its environment, and its generator of random actions."""

    def __init__(self, env: str, seed: int, index: int, *, images: bool) -> None:
        self.index = index
        self.environment: Env[Any, Any] = envs.single(env, seed=seed, index=index, images=images)
        # [seed, index] itself is the environment's, which samples the no-ops from it.
        self.random = np.random.default_rng([seed, index, 1])
        self.observation: Observation = self.environment.reset()
        self.end: Mapping[str, Any] | None = None  # the last info, once it is over
        self.unstable = False

    def choose(
        self, action: Action | None, epsilon: float, log_policy: NDArray[np.float32] | None = None
    ) -> Action:
        """The policy's action, or one sampled from its `log_policy` (A,); with probability ε
        (always without a policy) a random one.
        """
        if self.random.random() < epsilon or action is None:
            return random_action(self.environment.action_space, self.random)
        if log_policy is None:
            return action
        # The index of the largest log π + noise of this distribution is distributed as π.
        return np.asarray(np.argmax(log_policy + self.random.gumbel(size=len(log_policy))))

    def step(self, action: Action) -> float:
        """Take an action; returns its reward."""
        try:
            image, reward, terminated, truncated, info = self.environment.step(action)
        except UnstableError as error:
            self.end, self.unstable = error.info, True
            return 0.0
        self.observation = image, info
        if terminated or truncated:
            self.end = info
        return float(reward)


def evaluate(
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    epsilon: float,
    progress: Callable[[int], None],
    sample: bool = False,
) -> Scores:
    """Scores of so many full episodes; `progress` is called at each one's end."""
    return _play(policy.spec.env, policy, episodes, seed, epsilon, progress, sample)


def evaluate_random(
    env: str, *, episodes: int, seed: int, progress: Callable[[int], None]
) -> Scores:
    """The same episodes of the uniform random policy."""
    return _play(env, None, episodes, seed, 1.0, progress)


def _play(
    env: str,
    policy: Policy | None,
    episodes: int,
    seed: int,
    epsilon: float,
    progress: Callable[[int], None],
    sample: bool = False,
) -> Scores:
    """Play at most POOL episodes in parallel; where one ends, the next one begins."""
    images = policy is not None and policy.encoder.info is None
    waiting = iter(range(episodes))
    players = [Player(env, seed, index, images=images) for index in islice(waiting, POOL)]
    actor = _begin(policy, players) if policy else None
    finished: list[Player] = []
    while players:
        actions, _ = _choose(actor, players, epsilon, sample)
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
                players[row] = Player(env, seed, index, images=images)
        players = [player for player, stay in zip(players, stays, strict=True) if stay]
        if actor and players:
            actor.keep(stays)
            newest = _observations(actor.policy, players)
            action, reward = np.array(actions)[stays], np.array(rewards)[stays]
            actor.observe(*newest, action=action, reward=reward, first=ended[stays])
    return _scores(sorted(finished, key=lambda player: player.index))


def _choose(
    actor: Actor | None, players: Sequence[Player], epsilon: float, sample: bool
) -> tuple[list[Action], Extras]:
    """Every player's action, from its own generator, and the network's extras."""
    if actor is None:
        return [player.choose(None, epsilon) for player in players], {}
    choices, extras = actor.act(explore=False)
    policies = extras["log_policy"].cpu().numpy() if sample else [None] * len(players)
    each = zip(players, choices, policies, strict=True)
    return [player.choose(choice, epsilon, policy) for player, choice, policy in each], extras


def _begin(policy: Policy, players: Sequence[Player]) -> Actor:
    actor = Actor(policy, len(players))
    actor.begin(*_observations(policy, players))
    return actor


def _observations(
    policy: Policy, players: Sequence[Player]
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """The newest images (N, H, W, 3), and the entries of their infos that the encoder reads."""
    images = np.stack([player.observation[0] for player in players])
    name = policy.encoder.info
    infos = {name: np.stack([player.observation[1][name] for player in players])} if name else {}
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


def record(
    policy: Policy, *, seed: int, epsilon: float, limit: int = 1_800, sample: bool = False
) -> list[EpisodeFrame]:
    """The first episode of `evaluate` with the same seed, step by step, at most `limit` steps."""
    frames: list[EpisodeFrame] = []
    player = Player(policy.spec.env, seed, 0, images=True)
    with closing(player.environment):
        actor, score = _begin(policy, [player]), 0.0
        while player.end is None and len(frames) < limit:
            (action,), extras = _choose(actor, [player], epsilon, sample)
            image = player.observation[0]
            selected, attention = _attention(policy, actor.obs, extras)
            now = image, score, len(frames), selected, attention
            frames.append(EpisodeFrame(*now, *_map(policy, image, actor.obs, extras)))
            reward = player.step(action)
            score += reward
            if player.end is None:
                observation, first = _observations(policy, [player]), np.zeros(1, np.bool_)
                actor.observe(
                    *observation, action=np.array([action]), reward=np.array([reward]), first=first
                )
    return frames


@torch.no_grad()
def _map(
    policy: Policy, image: NDArray[np.uint8], obs: Obs, extras: Extras
) -> tuple[NDArray[np.float32] | None, bool]:
    """The map (H, W) of the policy's attention, or the encoder's saliency map if its features
    depend on it, and which of them it is. None if the encoder selects patches.
    """
    if policy.encoder.selects:
        return None, False
    maps = attention_map(policy, obs, extras, (image.shape[0], image.shape[1]))
    if maps is not None:
        return maps[0].cpu().numpy(), True
    if not policy.encoder.uses_saliency:
        return None, False
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].to(policy.agent.device)
    saliency = policy.encoder.saliency_map(batch)
    return None if saliency is None else saliency[0, 0].cpu().numpy(), False


def _attention(policy: Policy, obs: Obs, extras: Extras) -> tuple[Any, Any]:
    """Selected patches (K,) and the attention on them (K,) of the first row, without padding.

    None if the encoder does not select patches: other tokens have no position in the frame.
    """
    if not policy.encoder.selects:
        return None, None
    mask = obs["mask"][0]
    selected = obs["pos"][0][mask].cpu().numpy()
    if "attention" not in extras:
        return selected, None
    return selected, extras["attention"][0].mean(0)[mask].cpu().numpy()
