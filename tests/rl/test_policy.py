"""A policy's artifact needs no other file, acts the same after loading, and is refused if
damaged.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from safetensors.torch import save_file

from datasets import envs
from datasets.errors import FoveaError
from datasets.files import sha256_file
from datasets.sealed import write_manifest
from pretrain.encoders import mae, state
from rl.actor import Actor
from rl.nets import tokens, vector
from rl.policy import Policy, Spec, action_count, load_policy, make_policy, save_policy
from tests.rl import fakes, point

SHAPE = (3, 96, 96)
TINY = mae.Config(
    patch=16, dim=16, depth=1, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
)


def artifact(folder: Path) -> Policy:
    """An artifact as the stage `train` writes it, with two seeds and two steps each."""
    torch.manual_seed(0)
    encoder = mae.Pretraining(TINY, SHAPE).encoder(mae.Features(select="fixed", k=5))
    net = tokens.Config(pad="masked", width=16)
    spec = Spec("atari/Breakout", "rainbow", fakes.SMALL, "tokens", net, 4)
    save_policy(spec, encoder, folder)
    for seed in (0, 1):
        (folder / f"seed-{seed}").mkdir()
        for step in (60, 160):
            policy = make_policy(spec, encoder, seed=seed + step)
            weights = policy.agent.policy.state_dict()
            save_file(weights, folder / f"seed-{seed}" / f"weights-{step:07d}.safetensors")
    return make_policy(spec, encoder, seed=161)  # seed 1's last


def acts(policy: Policy) -> list[int]:
    actor, taken = Actor(policy, 2), []
    random = np.random.default_rng(0)
    for number in range(4):
        images = random.integers(0, 256, (2, 96, 96, 3)).astype(np.uint8)
        if number == 0:
            actor.begin(images, {})
        else:
            done: dict[str, Any] = {"action": np.zeros(2, np.int64), "reward": np.zeros(2)}
            actor.observe(images, {}, **done, first=np.zeros(2, np.bool_))
        taken += actor.act(explore=False)[0].tolist()
    return taken


def test_a_loaded_policy_is_the_saved_one(tmp_path: Path) -> None:
    policy = artifact(tmp_path / "moved")
    (tmp_path / "moved").rename(tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy", seed=1)
    assert loaded.spec == policy.spec and loaded.seed == 1
    assert loaded.encoder.features == policy.encoder.features
    own, theirs = (each.agent.policy.state_dict() for each in (policy, loaded))
    assert own.keys() == theirs.keys() and all(torch.equal(own[k], theirs[k]) for k in own)
    assert acts(loaded) == acts(policy)
    first = load_policy(tmp_path / "policy", seed=1, step=60).agent.policy.state_dict()
    assert not torch.equal(first["net.cls"], own["net.cls"])


def test_equal_policies_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        artifact(tmp_path / name)
    files = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "a", tmp_path / "b")
    ]
    assert files[0] == files[1] and len(files[0]) == 7


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A change of config.json."""

    def damage(folder: Path) -> None:
        header = json.loads((folder / "config.json").read_text())
        change(header)
        (folder / "config.json").write_text(json.dumps(header))

    return damage


WEIGHTS = "seed-0/weights-0000160.safetensors"


def nan(folder: Path) -> None:
    policy = load_policy(folder, seed=0)
    weights = policy.agent.policy.state_dict()
    weights["net.cls"][:] = torch.nan
    save_file(weights, folder / WEIGHTS)


def flip_bit_of_weights(folder: Path) -> None:
    write_manifest(folder / "manifest.json", {"files": {WEIGHTS: sha256_file(folder / WEIGHTS)}})
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (edit(lambda h: h.update(format="fovea-encoder/1")), "config.json: format is"),
        (edit(lambda h: h.update(env=3)), "config.json: env 3 and actions 4"),
        (edit(lambda h: h.update(actions=True)), "config.json: .*actions True"),
        (edit(lambda h: h.update(actions=10**9)), "config.json: .*actions 1000000000"),
        (
            edit(lambda h: h.update(agent=["rainbow"])),
            "config.json: None, must be a file of rl.agents",
        ),
        (edit(lambda h: h["agent"].update(name="../x")), r"config.json: '\.\./x', must be a file"),
        (edit(lambda h: h["agent"].update(name=[])), r"config.json: \[\], must be a file"),
        (edit(lambda h: h["agent"].update(gamma=2)), "config.json: rainbow: gamma: 2, must be"),
        (edit(lambda h: h["net"].update(colour=1)), "config.json: tokens: .*colour"),
        (edit(lambda h: h["net"].update(width=8)), r"weights-0000160.*not this policy's weights"),
        (
            edit(lambda h: h["net"].update(width=16_384)),
            "config.json: .*describes more than weights-0000160",
        ),
        (lambda f: (f / "config.json").write_text("{"), "config.json: not readable"),
        (lambda f: (f / WEIGHTS).write_bytes(b"no"), r"weights-0000160.*not this policy's weights"),
        (flip_bit_of_weights, r"weights-0000160.*not the bytes that .*manifest.json lists"),
        (nan, r"weights-0000160.*net.cls has NaN"),
        (lambda f: (f / "encoder/model.safetensors").write_bytes(b""), "encoder/model.safetensors"),
    ],
)
def test_damage_is_named_with_its_file(
    damage: Callable[[Path], object], named: str, tmp_path: Path
) -> None:
    artifact(tmp_path)
    damage(tmp_path)
    with pytest.raises(FoveaError, match=named):
        load_policy(tmp_path, seed=0)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    artifact(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"seed 0 has no weights of step 70.*\[60, 160\]"):
        load_policy(tmp_path, seed=0, step=70)
    with pytest.raises(FileNotFoundError, match=r"seed 2 has no weights.*none"):
        load_policy(tmp_path, seed=2)


def test_a_policy_of_the_state_is_complete_too(tmp_path: Path) -> None:
    encoder = state.Encoder(state.Config(), state.Features(), None)
    spec = Spec("metaworld/reach", "sac", point.SMALL, "vector", vector.Config(), 4)
    save_policy(spec, encoder, tmp_path)
    (tmp_path / "seed-0").mkdir()
    weights = make_policy(spec, encoder).agent.policy.state_dict()
    save_file(weights, tmp_path / "seed-0/weights-0000001.safetensors")
    assert load_policy(tmp_path).spec == spec


@pytest.mark.parametrize("env", ["atari/Breakout", "atari/Frostbite", "metaworld/reach"])
def test_actions_are_counted_without_starting_the_environment(env: str) -> None:
    with closing(envs.single(env, seed=0, index=0, images=False)) as environment:
        assert envs.action_space(env) == environment.action_space


@pytest.mark.parametrize(
    ("space", "count"),
    [(Discrete(7), 7), (Box(-1, 1, (4,)), 4), (Box(0, 1, (4,)), 0), (MultiDiscrete([2, 3]), 0)],
)
def test_unsupported_action_spaces_are_refused(space: Space[Any], count: int) -> None:
    if count:
        assert action_count(space) == count
    else:
        with pytest.raises(FoveaError, match="its actions are"):
            action_count(space)
