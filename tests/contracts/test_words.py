"""What every word's file promises, checked over all files that there are: a new word is in by being
there. A word of params.yaml is a file of one of these folders; what it exports is what the stages
use without looking who it is.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import itertools
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from safetensors.numpy import save_file
from torch import Tensor

from datasets import envs
from datasets.annotation import choice
from datasets.annotation.click_file import Clicked, write_clicks
from datasets.annotation.maps import CANVAS
from datasets.frame import Frame
from datasets.shards import FrameSet, read_frames, write_shard
from pipeline import typed
from pretrain.encoder import (
    Encoder,
    Obs,
    export,
    load_encoder,
    needs_saliency,
    save_encoder,
)
from pretrain.saliency import motion
from pretrain.saliency_source import load_saliency, save_saliency
from rl import agents, nets
from rl.agent import Agent, Batch, push

CODE = Path(__file__).parents[2]
PACKAGES = (
    "datasets.envs",
    "datasets.sources",
    "datasets.annotation",
    "pretrain.encoders",
    "pretrain.saliency",
    "rl.agents",
    "rl.nets",
)
# Stand in a folder of words and are none.
PARTS = {
    f"datasets.annotation.{part}"
    for part in ("choice", "click_file", "heatmap_js", "maps", "server")
}
GIVEN = {"datasets.envs": {"game"}}  # fields that the word itself fills in, so without a default
SHAPE = (3, 32, 32)
ACTIONS = 3
# Everything that has one of these fields is built small; what has none of them is small already.
SMALL: dict[str, Any] = dict(
    patch=8, dim=16, depth=1, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2,
    batch_size=6, streams=2, horizon=7, steps=60, learn_start=8, replay_capacity=60, n_step=3,
    stack=2, atoms=5, hidden=8, target_every=2, learning_rate=0.01, layers=3, filters=4, size=16,
)  # fmt: skip


def words(package: str) -> list[str]:
    """Every word of a folder, as `package.word`."""
    files = (CODE / package.replace(".", "/")).glob("*.py")
    names = [f"{package}.{path.stem}" for path in sorted(files) if path.stem != "__init__"]
    return [name for name in names if name not in PARTS]


WORDS = [name for package in PACKAGES for name in words(package)]


def of(package: str) -> pytest.MarkDecorator:
    """The test runs once for every word of a folder."""
    return pytest.mark.parametrize("word", words(package))


def small(config: Callable[..., Any], **given: Any) -> Any:
    """A Config with what SMALL says of the fields it has."""
    known = inspect.signature(config).parameters
    return config(**given, **{key: value for key, value in SMALL.items() if key in known})


def images(count: int = 4, seed: int = 0) -> Tensor:
    """Frames (count, *SHAPE) of noise; the last is one thing on an even ground, so that little is
    selected of it."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=generator)
    thing = made[-1, :, 8:16, 8:16].clone()
    made[-1] = 90
    made[-1, :, 8:16, 8:16] = thing
    return made


def make_encoder(word: str) -> Any:
    """As the stage `pretrain` makes one, less the training."""
    module = importlib.import_module(word)
    config = small(module.Config)
    carried = [motion.fit(motion.Config(), images(7, seed=1))] if needs_saliency(config) else []
    if hasattr(module, "Pretraining"):
        return module.Pretraining(config, SHAPE).encoder(module.Features(), *carried)
    return module.Encoder(config, module.Features(), SHAPE, *carried)


def given(encoder: Any, count: int = 4, seed: int = 0) -> Tensor:
    """What an encoder gets: images, or states."""
    if not hasattr(encoder, "info"):
        return images(count, seed)
    return torch.randn(count, encoder.size, generator=torch.Generator().manual_seed(seed))


def make_agent(word: str, encoder: Encoder, seed: int = 0) -> Agent:
    name, config = word.rsplit(".", 1)[1], small(importlib.import_module(word).Config)
    kind = nets.kind_of(encoder(given(encoder, 1)))
    net = small(nets.config_for(agents.net_for(name, kind)))
    return agents.make(name, config, encoder, actions=ACTIONS, net=net, seed=seed)


def equal(one: Obs, other: Obs) -> bool:
    """Equal keys and equal bits."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def same_files(one: Path, other: Path) -> bool:
    files = {path.name: path.read_bytes() for path in one.iterdir()}
    return files == {path.name: path.read_bytes() for path in other.iterdir()} and bool(files)


# Every word


def test_every_folder_has_words() -> None:
    assert {name.rsplit(".", 1)[0] for name in WORDS} == set(PACKAGES)


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_one_file_that_says_what_it_is(word: str) -> None:
    """It opens with a docstring and imports no other word's file: it can be read on its own."""
    source = (CODE / word.replace(".", "/")).with_suffix(".py")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    assert len(ast.get_docstring(tree) or "") > 40
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            imported |= {str(node.module)}
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert imported.isdisjoint(set(WORDS))


def configs() -> Iterator[tuple[str, type]]:
    for word in WORDS:
        for name in ("Config", "Features"):
            if hasattr(importlib.import_module(word), name) or name == "Config":
                yield word, getattr(importlib.import_module(word), name)


CONFIGS = pytest.mark.parametrize(("word", "config"), list(configs()))


def default(word: str, config: Any) -> Any:
    """The Config at its defaults; the given fields filled in."""
    given = {"game": game_of(word)} if word.startswith("datasets.envs.") else {}
    return config(**given)


@CONFIGS
def test_settings_are_a_flat_frozen_dataclass_of_defaults(word: str, config: Any) -> None:
    """What goes into a manifest as JSON comes back as it was, through params.yaml's own reader."""
    assert isinstance(config, type) and dataclasses.is_dataclass(config)
    required = {
        field.name
        for field in dataclasses.fields(config)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    assert required == GIVEN.get(word.rsplit(".", 1)[0], set())
    made = default(word, config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.anything = 1
    written = json.loads(json.dumps(dataclasses.asdict(made), allow_nan=False))
    assert not any(isinstance(value, dict) for value in written.values())
    mistakes: list[str] = []
    assert typed.read_into([config], written, mistakes) == [made]
    assert mistakes == []


@CONFIGS
def test_impossible_settings_are_refused_by_name(word: str, config: Any) -> None:
    """A negative count and a name that is none, in every field that holds one."""
    made = default(word, config)
    for field in dataclasses.fields(config):
        value = getattr(made, field.name)
        bad: Any = {int: -1, str: "no such thing"}.get(type(value))
        if bad is None and isinstance(value, tuple):
            bad = (-1,) * len(value)
        if bad is not None:
            with pytest.raises(ValueError, match=r"^[a-z_0-9]+: ") as refused:
                dataclasses.replace(made, **{field.name: bad})
            known = {other.name for other in dataclasses.fields(config)}
            assert str(refused.value).split(":")[0] in known


# Encoders


def kind(word: str) -> str:
    return str(importlib.import_module(word).KIND)


# The encoders that look at images: all but those of the environment's state.
SEEING = pytest.mark.parametrize(
    "word", [word for word in words("pretrain.encoders") if kind(word) != "state"]
)


def check_obs(encoder: Encoder, image: Tensor, obs: Obs) -> None:
    """Keys, shapes and types of the kinds of features there are; padding is zero."""
    batch, (_, height, width) = len(image), encoder.image_shape
    kind = nets.kind_of(obs)
    if kind == "pixels":
        assert obs["image"].shape[0] == batch and obs["image"].shape[1] >= 1
        assert obs["image"].shape[2:] == (height, width)
        assert obs["image"].dtype == torch.uint8
        assert encoder.max_tokens == encoder.dim == 0
        return
    if kind == "state":
        assert obs["state"].shape == image.shape and obs["state"].dtype == torch.float32
        assert encoder.max_tokens == encoder.dim == 0
        return
    assert kind == "tokens"
    x, mask, pos = obs["x"], obs["mask"], obs["pos"]
    assert encoder.max_tokens >= 1 and encoder.dim >= 1
    assert x.shape == (batch, encoder.max_tokens, encoder.dim) and x.dtype == torch.float32
    assert mask.shape == pos.shape == (batch, encoder.max_tokens)
    assert mask.dtype == torch.bool and pos.dtype == torch.int64
    assert x.isfinite().all() and pos.min() >= 0
    assert mask.any(dim=1).all(), "a frame without any token"
    assert not x[~mask].any() and not pos[~mask].any(), "padding that is not zero"
    for b in range(batch):
        positions = pos[b][mask[b]].tolist()
        assert positions == sorted(set(positions)), "a patch twice, or out of order"


@of("pretrain.encoders")
def test_an_encoder_gives_the_features_it_names(word: str) -> None:
    encoder = make_encoder(word)
    image = given(encoder)
    assert encoder.image_shape == SHAPE
    obs = encoder(image)
    check_obs(encoder, image, obs)
    assert nets.kind_of(obs) == importlib.import_module(word).KIND
    assert equal(encoder(image), obs), "twice is not the same"
    assert equal(make_encoder(word)(image), obs), "made twice is not the same"
    for b in range(len(image)):
        alone = encoder(image[b : b + 1])
        assert equal(alone, {key: value[b : b + 1] for key, value in obs.items()}), "company"


@of("pretrain.encoders")
def test_an_encoder_is_frozen(word: str) -> None:
    """Nothing in it asks for gradients or is in training mode, and seeing changes nothing."""
    encoder = make_encoder(word)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with torch.enable_grad():
        obs = encoder(given(encoder))
    assert not any(value.requires_grad for value in obs.values())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    if before:
        assert not any(module.training for module in encoder.modules())
    assert equal(encoder.state_dict(), before)


@of("pretrain.encoders")
def test_an_encoder_is_saved_and_loaded(word: str, tmp_path: Path) -> None:
    encoder = make_encoder(word)
    image = given(encoder)
    save_encoder(encoder, tmp_path / "a")
    save_encoder(make_encoder(word), tmp_path / "b")
    loaded = load_encoder(tmp_path / "a")
    save_encoder(loaded, tmp_path / "c")
    assert equal(loaded(image), encoder(image))
    assert loaded.image_shape == SHAPE
    assert (loaded.max_tokens, loaded.dim) == (encoder.max_tokens, encoder.dim)
    assert same_files(tmp_path / "a", tmp_path / "b") and same_files(tmp_path / "a", tmp_path / "c")


@SEEING
def test_an_encoder_is_exported(word: str, tmp_path: Path) -> None:
    """The program gives the same of any batch."""
    encoder = make_encoder(word)
    export(encoder, tmp_path / "encoder.pt2")
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    for count in (1, 4):
        expected, found = encoder(images(count)), program(images(count))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key].dtype == value.dtype and found[key].shape == value.shape
            assert (found[key].double() - value.double()).abs().max() <= 1e-5, key


@SEEING
def test_an_encoder_refuses_other_images(word: str) -> None:
    good = images()
    wrong = [
        good.float(),
        good.bool(),
        good[0],
        good[:, :1],
        good[..., :24],
        good[..., :24, :],
        good.permute(0, 2, 3, 1),
    ]
    for image in wrong:
        with pytest.raises(ValueError, match="image: wants uint8"):
            make_encoder(word)(image)


SPOILT: dict[str, Callable[[Obs], Obs]] = {
    "half": lambda o: o | {"x": o["x"].half()},
    "padding": lambda o: o | {"x": o["x"] + 1},
    "mask": lambda o: o | {"mask": o["mask"].byte()},
    "position": lambda o: o | {"pos": o["pos"].int()},
    "twice": lambda o: o | {"pos": torch.zeros_like(o["pos"])},
    "short": lambda o: {key: value[:, 1:] for key, value in o.items()},
    "empty": lambda o: o | {"x": 0 * o["x"], "pos": 0 * o["pos"], "mask": o["mask"] & False},
    "infinite": lambda o: o | {"x": o["x"].masked_fill(o["mask"][..., None], torch.inf)},
    "batch": lambda o: {key: value[:1] for key, value in o.items()},
}


@pytest.mark.parametrize("fault", SPOILT)
def test_the_check_of_features_finds_faults(fault: str) -> None:
    encoder, image = make_encoder("pretrain.encoders.mae"), images()
    obs = encoder(image)
    assert not obs["mask"].all(), "no padding to look at"
    with pytest.raises(AssertionError):
        check_obs(encoder, image, SPOILT[fault](obs))


# Saliency


def make_source(word: str) -> Any:
    """As the stage `fit` makes one, less the training."""
    module = importlib.import_module(word)
    assert hasattr(module, "Training") != hasattr(module, "fit"), "learns from maps, or does not"
    if hasattr(module, "Training"):
        return module.Training(small(module.Config), SHAPE).saliency()
    return module.fit(small(module.Config), images(7, seed=1))


@of("pretrain.saliency")
def test_a_saliency_source_keeps_its_promises(word: str, tmp_path: Path) -> None:
    module, image, source = importlib.import_module(word), images(), make_source(word)
    assert isinstance(source, module.Saliency)
    maps = source(image)
    assert maps.shape == (4, 1, *SHAPE[1:]) and maps.dtype == torch.float32
    assert maps.min() >= 0 and maps.max() <= 1 and maps.std() > 0
    assert not maps.requires_grad
    assert torch.equal(source(image), maps), "twice is not the same"
    assert torch.equal(source(image[1:2]), maps[1:2]), "a map depends on the other frames"
    assert not any(parameter.requires_grad for parameter in source.parameters())
    for number, made in enumerate((source, make_source(word))):
        save_saliency(made, tmp_path / str(number))
    assert same_files(tmp_path / "0", tmp_path / "1")
    loaded = load_saliency(tmp_path / "0")
    assert torch.equal(loaded(image), maps)
    save_saliency(loaded, tmp_path / "2")
    assert same_files(tmp_path / "0", tmp_path / "2")


# Annotators


@of("datasets.annotation")
def test_an_annotator_clicks_on_frames(word: str, tmp_path: Path) -> None:
    """Up to as many as asked, drawn at random, the same ones every time; inside the picture."""
    module, frames = importlib.import_module(word), read_frames(clicked_frames(tmp_path))
    found = module.annotate(module.Config(), "metaworld/reach", frames, 5, tmp_path)
    assert found and all(annotator == annotator.lower() for annotator in found)
    for clicks in found.values():
        assert 0 < len(clicks) <= 5 and set(clicks) <= set(range(len(frames)))
        for places in clicks.values():
            assert places.ndim == 2 and places.shape[1] == 2 and places.dtype == np.float64
            assert len(places) and places.min() >= 0 and places.max() <= CANVAS
    fewer = module.annotate(module.Config(), "metaworld/reach", frames, 2, tmp_path)
    assert {name: len(clicks) for name, clicks in fewer.items()} == dict.fromkeys(found, 2)
    for name, clicks in fewer.items():
        assert list(clicks) == list(found[name])[:2], "fewer are not the first of more"
        assert all(np.array_equal(clicks[index], found[name][index]) for index in clicks)
    other = module.annotate(module.Config(seed=1), "metaworld/reach", frames, 5, tmp_path)
    assert {*other} == {*found} and all(list(other[name]) != list(found[name]) for name in found)


def clicked_frames(folder: Path) -> Path:
    """A shard of frames, and a file with clicks on each of them."""
    points = np.array([[2, 2], [9, 3], [5, 12]], np.float32)
    noise = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    made = [Frame(image, 0, 0.0, False, False, 0, n, {"points": points})
            for n, image in enumerate(noise)]  # fmt: skip
    write_shard(folder / "000-00000.tar", made, stream=0, start=0)
    frames = read_frames(folder)
    clicked = {key: Clicked(choice.digest(frames, n), ((n, 2.5), (400.0, 0.0)))
               for n, key in enumerate(choice.keys(frames))}  # fmt: skip
    write_clicks(folder / "somebody.json", clicked)
    return folder


# Nets and agents


# Every agent with every encoder that it has a net for.
MATRIX = pytest.mark.parametrize(
    ("word", "encoder"),
    [
        (agent, encoder)
        for agent, encoder in itertools.product(words("rl.agents"), words("pretrain.encoders"))
        if kind(encoder) in importlib.import_module(agent).NETS
    ],
)


def stacked(pool: Obs, count: int, depth: int, seed: int = 0) -> Obs:
    """`count` states of `depth` frames, drawn from encoded ones."""
    size, generator = len(next(iter(pool.values()))), torch.Generator().manual_seed(seed)
    rows = torch.randint(size, (count, depth), generator=generator)
    return {key: value[rows] for key, value in pool.items()}


def test_every_net_is_somebodys() -> None:
    kinds = {kind(word) for word in words("pretrain.encoders")}
    taken = [importlib.import_module(word).NETS for word in words("rl.agents")]
    assert {f"rl.nets.{net}" for nets in taken for net in nets.values()} == set(words("rl.nets"))
    assert {kind for nets in taken for kind in nets} == kinds


@MATRIX
def test_the_net_of_an_agent_on_an_encoders_features(word: str, encoder: str) -> None:
    """One finite vector a state, each state on its own; every parameter learns; kept weights act
    the same."""
    eyes, depth = make_encoder(encoder), 2
    stack, example = stacked(eyes(given(eyes, 6)), 3, depth), eyes(given(eyes, 1))
    net = agents.net_for(word.rsplit(".", 1)[1], kind(encoder))
    config = small(nets.config_for(net))
    torch.manual_seed(0)
    made, other = nets.make(net, example, depth, config), nets.make(net, example, depth, config)
    vectors, extras = made(stack)
    assert vectors.shape == (3, made.width) and vectors.dtype == torch.float32
    assert vectors.isfinite().all()
    alone, _ = made({key: value[1:2] for key, value in stack.items()})
    torch.testing.assert_close(alone, vectors[1:2])
    if "attention" in extras:
        attention = extras["attention"]
        assert attention.ndim == 3 and attention.shape[::2] == (3, eyes.max_tokens)
        assert attention.min() >= 0 and attention.sum(-1).max() <= 1 + 1e-5
    if list(made.parameters()):
        vectors.square().sum().backward()
        assert not torch.equal(other(stack)[0], vectors)
    for name, parameter in made.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, f"{name} never learns"
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(stack)[0], vectors)


def continuous(agent: Agent) -> bool:
    found: str = importlib.import_module(type(agent).__module__).ACTIONS
    assert found in ("discrete", "continuous")
    return found == "continuous"


def make_batch(agent: Agent, pool: Obs, seed: int) -> Batch:
    size, generator = agent.config.batch_size, torch.Generator().manual_seed(seed)
    chosen = torch.randint(ACTIONS, (size,), generator=generator)
    if continuous(agent):
        chosen = torch.rand(size, ACTIONS, generator=generator) * 2 - 1
    return Batch(
        obs=stacked(pool, size, agent.config.stack, seed),
        action=chosen,
        reward=torch.randn(size, generator=generator),
        discount=torch.tensor([0.9, 0.0] * size)[:size],
        next_obs=stacked(pool, size, agent.config.stack, seed + 100),
        weight=torch.rand(size, generator=generator),
        index=torch.arange(size),
    )


@MATRIX
def test_an_agent_acts(word: str, encoder: str) -> None:
    """Actions that exist, and a state that is the last frames, zero before an episode begins."""
    eyes = make_encoder(encoder)
    agent = make_agent(word, eyes)
    frames = [eyes(given(eyes, 4, seed=n)) for n in range(3)]
    state: Obs | None = None
    for number, obs in enumerate(frames):
        first = torch.tensor([True] * 4 if number == 0 else [False, False, True, False])
        expected = push(obs, state, first, agent.config.stack)
        before = {key: value.clone() for key, value in (state or {}).items()}
        action, new, extras = agent.act(obs, state, first, explore=number % 2 == 0)
        if continuous(agent):
            assert action.shape == (4, ACTIONS) and action.dtype == torch.float32
            assert action.abs().max() <= 1
        else:
            assert action.shape == (4,) and action.dtype == torch.int64
            assert action.min() >= 0 and action.max() < ACTIONS
        assert equal(new, expected)
        assert state is None or equal(before, state), "the caller's state was written to"
        assert not any(value.requires_grad for value in extras.values())
        state = new
    begun = {key: value[2, :-1] for key, value in (state or {}).items()}
    assert not any(value.any() for value in begun.values())
    again = [agent.act(frames[2], None, first, explore=False)[0] for _ in range(2)]
    assert torch.equal(*again)


@MATRIX
def test_an_agent_learns_and_goes_on_bit_for_bit(word: str, encoder: str, tmp_path: Path) -> None:
    """Its state dict, written and read without pickle, is all that the next updates depend on."""
    eyes = make_encoder(encoder)
    agent, other = make_agent(word, eyes), make_agent(word, eyes, seed=1)
    pool = eyes(given(eyes, 8))
    start = {key: value.clone() for key, value in agent.policy.state_dict().items()}
    assert equal(make_agent(word, eyes).policy.state_dict(), start), "made twice is not the same"
    for number in range(3):
        scalars = agent.update(make_batch(agent, pool, number))
        assert not any(value.requires_grad for value in scalars.values())
        if agent.config.priority_exponent:
            priority = scalars.pop("priority")
            assert priority.shape == (agent.config.batch_size,) and (priority >= 0).all()
        assert "loss" in scalars
        assert all(value.shape == () and value.isfinite() for value in scalars.values())
    for name, parameter in agent.policy.named_parameters():
        changed = not torch.equal(parameter, start[name])
        assert changed == parameter.requires_grad, f"{name}: changed {changed}"
    torch.save(agent.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for number in range(3, 6):
        batch = make_batch(agent, pool, number)
        assert equal(agent.update(batch), other.update(batch))
    assert flat(agent.state_dict()) == flat(other.state_dict())
    states = [each.act(eyes(given(eyes)), None, torch.ones(4).bool(), explore=True)[0]
              for each in (agent, other)]  # fmt: skip
    assert torch.equal(*states)


@MATRIX
def test_an_agent_learns_as_with_adam_one_weight_after_the_other(
    word: str, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adam's fused form deals a gradient to the wrong weights where its strides are others."""
    eyes, real = make_encoder(encoder), torch.optim.Adam
    pool, fused = eyes(given(eyes, 8)), make_agent(word, eyes)
    plain = {"fused": False, "foreach": False}
    monkeypatch.setattr(torch.optim, "Adam", lambda given, **keys: real(given, **keys | plain))
    slow = make_agent(word, eyes)
    for number in range(3):
        batch = make_batch(fused, pool, number)
        fused.update(batch), slow.update(batch)
    for (name, ours), theirs in zip(
        fused.policy.named_parameters(), slow.policy.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4, msg=name)


def flat(state: Any) -> bytes:
    """Equal bytes for equal states, whatever is in them."""
    if isinstance(state, Tensor):
        return repr((state.dtype, state.shape)).encode() + state.numpy().tobytes()
    if isinstance(state, dict):
        return b"".join(repr(key).encode() + flat(value) for key, value in state.items())
    if isinstance(state, list | tuple):
        return b"".join(map(flat, state))
    return repr(state).encode()


# Environments and sources


def game_of(word: str) -> str:
    """A game in which something moves at once, if we know one."""
    games = list(importlib.import_module(word).games())
    return "Breakout" if "Breakout" in games else games[0]


def make_env(word: str, num_envs: int = 2, seed: int = 0) -> VectorEnv[Any, Any, Any]:
    module = importlib.import_module(word)
    config = small(module.Config, game=game_of(word), num_envs=num_envs)
    made: VectorEnv[Any, Any, Any] = module.make(config, seed)
    return made


def make_single(word: str, seed: int, index: int) -> Any:
    module = importlib.import_module(word)
    return module.single(small(module.Config, game=game_of(word)), seed, index)


def action(space: Space[Any], number: int) -> Any:
    """0, 1, 0, 1 …, or all of a continuous action half way down, half way up, …"""
    if isinstance(space, Discrete):
        return number % 2
    return np.full(space.shape, number % 2 - 0.5, space.dtype)


def play(env: VectorEnv[Any, Any, Any], steps: int) -> list[Any]:
    """What the same actions in every environment lead to."""
    with closing(env):
        seen: list[Any] = [env.reset()]
        for number in range(steps):
            one = action(env.single_action_space, number)
            seen.append(env.step(np.stack([one] * env.num_envs)))
        return seen


@of("datasets.envs")
def test_a_suite_is_a_vector_env_with_same_step_resets(word: str) -> None:
    """The step that ends an episode gives the next one's first frame, and the last one beside."""
    module, env = importlib.import_module(word), make_env(word)
    suite = word.rsplit(".", 1)[1]
    assert isinstance(env, VectorEnv) and env.num_envs == 2
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert list(module.games()) == sorted(module.games()) == envs.games(suite)
    discrete = isinstance(env.single_action_space, Discrete)
    assert envs.actions(f"{suite}/{game_of(word)}") == ("discrete" if discrete else "continuous")
    shape = envs.image_shape(f"{suite}/{game_of(word)}")
    seen = play(env, SMALL["horizon"])
    for obs, *_ in seen:
        assert obs.shape == (2, *shape[1:], shape[0]) and obs.dtype == np.uint8
    for _, reward, terminated, truncated, info in seen[1:-1]:
        assert reward.shape == (2,) and not terminated.any() and not truncated.any()
        assert "final_obs" not in info
        assert all(len(info[name]) == 2 for name in module.FRAME_INFO)
    obs, _, terminated, truncated, info = seen[-1]
    assert truncated.all() and not terminated.any()
    assert set(module.FRAME_INFO) <= info["final_info"].keys()
    for index in range(2):
        assert info["final_obs"][index].shape == obs[index].shape
        assert not np.array_equal(info["final_obs"][index], obs[index])


@of("datasets.envs")
def test_an_environment_depends_on_seed_and_index_alone(word: str) -> None:
    pair, three, other = (
        np.stack([step[0] for step in play(make_env(word, number, seed), 12)])
        for number, seed in ((2, 0), (3, 0), (2, 1))
    )
    assert np.array_equal(pair, three[:, :2])
    assert not np.array_equal(pair, other) and not np.array_equal(pair[:, 0], pair[:, 1])
    for index in range(2):
        with closing(make_single(word, 0, index)) as single:
            actions = [action(single.action_space, number) for number in range(6)]
            found = [single.reset()[0]] + [single.step(one)[0] for one in actions]
        assert np.array_equal(np.stack(found), pair[:7, index])


@of("datasets.envs")
def test_an_environment_that_is_not_drawn_is_the_same_one(word: str) -> None:
    name = f"{word.rsplit('.', 1)[1]}/{game_of(word)}"
    drawn, black = (envs.single(name, seed=0, index=1, draw=draw) for draw in (True, False))
    (image, info), (nothing, same) = drawn.reset(), black.reset()
    for number in range(3):
        assert image.any() and not nothing.any() and image.shape == nothing.shape
        assert all(np.array_equal(info[key], same[key]) for key in envs.frame_info(name))
        one = action(drawn.action_space, number)
        image, *rest, info = drawn.step(one)
        nothing, *others, same = black.step(one)
        assert rest == others
    drawn.close()
    black.close()


@of("datasets.envs")
def test_options_of_a_word_are_fields_of_the_suite(word: str) -> None:
    module, suite = importlib.import_module(word), word.rsplit(".", 1)[1]
    name = f"{suite}/{game_of(word)}"
    defaults = {field.name: field.default for field in dataclasses.fields(module.Config)}
    expected = {"suite": suite} | {key: defaults[key] for key in module.OPTIONS}
    assert envs.shown(name) == expected
    for key in module.OPTIONS:
        assert envs.shown(f"{name}?{key}={defaults[key]}") == expected
        with pytest.raises(ValueError, match=f"{key}: 'no such thing'"):
            envs.check(f"{name}?{key}=no such thing")
    with pytest.raises(ValueError, match="no option 'colour'"):
        envs.check(f"{name}?colour=red")


@of("datasets.envs")
def test_an_environment_goes_on_from_its_state(word: str) -> None:
    env, other = make_single(word, 0, 0), make_single(word, 5, 1)
    env.reset()
    actions = [action(env.action_space, number) for number in range(3)]
    image = env.step(actions[1])[0]
    state = env.get_state()
    expected = [env.step(one) for one in actions]
    other.set_state(state)
    assert np.array_equal(other.observe()[0], image)
    for one, (image, *rest) in zip(actions, expected, strict=True):
        again, *others = other.step(one)
        assert np.array_equal(image, again) and rest[:3] == others[:3]
    env.close()
    other.close()


# Sources that Atari has not.
SUITES = {f"datasets.sources.{word}": "metaworld/reach" for word in ("expert", "replay")}


def streams_of(word: str, env: str, count: int, folder: Path) -> Any:
    """As the stage `collect` makes them; one that plays a learner's actions gets any there are."""
    module, given = importlib.import_module(word), {}
    if hasattr(module, "LEARNED"):
        actions = np.random.default_rng(0).uniform(-1, 1, (SMALL["steps"], 4)).astype(np.float32)
        ends = np.zeros(0, np.int64)  # fewer steps than an episode has
        folder.mkdir(exist_ok=True)
        save_file({"action": actions, "end": ends}, folder / module.LEARNED)
        given = {"learned": folder}
    return module.streams(small(module.Config), env, count, **given)


@of("datasets.sources")
@pytest.mark.parametrize("count", [1, 5])
def test_a_sources_streams_write_as_many_frames_as_asked(
    word: str, count: int, tmp_path: Path
) -> None:
    """They travel to other processes, run in any order, and tell of each frame once."""
    env = SUITES.get(word, "atari/Pong")

    def run(folder: Path, order: int) -> FrameSet:
        made = streams_of(word, env, count, tmp_path / "learned")
        told: list[int] = []
        folder.mkdir(exist_ok=True)
        for stream in pickle.loads(pickle.dumps(made))[::order]:
            stream.run(folder, told.append)
        assert sum(told) == count
        return read_frames(folder)

    frames = run(tmp_path / "a", 1)
    assert len(frames) == count
    channels, *size = envs.image_shape(env)
    assert frames.images.shape[1:] == (*size, channels)
    assert set(envs.frame_info(env)) == set(frames.info)
    run(tmp_path / "b", -1)
    assert same_files(tmp_path / "a", tmp_path / "b")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    run(tmp_path / "a", 1)  # everything is there already
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()} == before


@of("datasets.sources")
def test_a_source_refuses_what_is_no_environment(word: str, tmp_path: Path) -> None:
    env = SUITES.get(word, "atari/Pong")
    with pytest.raises(ValueError, match=f"did you mean .*{env.split('/')[1]}"):
        streams_of(word, f"{env}g", 5, tmp_path)
    with pytest.raises(ValueError, match="count"):
        streams_of(word, env, 0, tmp_path)
