"""params.yaml is read strictly: every mistake is listed, with table, entry, key and a
suggestion.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from datasets.errors import FoveaError
from pipeline import params
from pipeline.commands.recipe import recipes
from pipeline.config.tables import EVALUATION_KEYS, Params

GOOD = """
frames:
  frostbite: {env: atari/Frostbite, source: random, count: 2000}
annotations: {}
predictors: {}
saliency: {}
encoders:
  frostbite-mae: {data: frames/frostbite, model: mae, patch: 16}
policies:
  frostbite-spirl: {env: atari/Frostbite, encoder: frostbite-mae, agent: rainbow, seeds: 2}
exams: {}
"""


def load(tmp_path: Path, text: str) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return params.load(path)


def mistakes(tmp_path: Path, old: str, new: str) -> str:
    assert old in GOOD
    with pytest.raises(FoveaError) as raised:
        load(tmp_path, GOOD.replace(old, new))
    return str(raised.value)


def test_defaults_are_in_the_resolved_entry(tmp_path: Path) -> None:
    checked = load(tmp_path, GOOD)
    encoder = checked.entry("encoders", "frostbite-mae").resolved()
    assert encoder["patch"] == 16
    assert encoder["mask"] == 0.75  # the paper's, from mae.Config
    policy = checked.entry("policies", "frostbite-spirl")
    assert policy.resolved()["steps"] == 100_000
    assert "seeds" not in policy.resolved(frozenset({"seeds"}))
    assert policy.inputs() == {"encoder": "encoders/frostbite-mae"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "atari/Frostbite, source",
            "atari/Frostbit, source",
            r"frames\.frostbite\.env.*mean Frostbite",
        ),
        ("atari/Frostbite, source", "atarri/Frostbite, source", r"frames\.frostbite\.env.*atari"),
        ("source: random", "source: randm", r"frames\.frostbite\.source.*'random'"),
        ("count: 2000", "cuont: 2000", r"cuont: unknown key; did you mean 'count'"),
        ("count: 2000", "cuont: 2000", r"frostbite\.count: missing"),
        ("count: 2000", "count: '2000'", r"count: '2000' \(str\), must be int"),
        ("count: 2000", "count: 2000.5", r"count: 2000.5 \(float\), must be int"),
        ("count: 2000", "count: true", r"count: True \(bool\), must be int"),
        ("count: 2000", "count: 0", r"frames\.frostbite\.count: 0, must be at least 1"),
        ("frames/frostbite", "frames/frostbit", r"mae\.data.*no entry.*'frames/frostbite'"),
        ("frames/frostbite", "frostbite", r"mae\.data.*no entry.*'frames/frostbite'"),
        ("model: mae", "model: maee", r"mae\.model.*'mae'"),
        ("patch: 16", "ptach: 16", r"ptach: unknown key; did you mean 'patch'"),
        ("patch: 16", "patch: 7", r"encoders\.frostbite-mae\.patch: 7"),
        ("patch: 16", "features: {select: fixed, k: 145}", r"mae\.features\.k: 145, but.* has 144"),
        ("patch: 16", "features: {slope: -1.0}", r"encoders\.frostbite-mae\.features\.slope: -1"),
        ("encoder: frostbite-mae", "encoder: frostbit-mae", r"spirl\.encoder.*'frostbite-mae'"),
        ("agent: rainbow", "agent: rainbo", r"spirl\.agent.*'rainbow'"),
        ("seeds: 2", "seeds: 0", r"seeds: 0, must be at least 1"),
        ("seeds: 2", "features: {max_ratio: 0}", r"features\.max_ratio"),
        ("seeds: 2", "features: {max_ratio: 1.5}", r"spirl\.features\.max_ratio: 1.5.*at most 1"),
        ("seeds: 2", "features: {select: fixed, k: 0}", r"spirl\.features\.k: 0.*at least 1"),
        ("seeds: 2", "features: {slope: .nan}", r"spirl\.features\.slope: nan.*finite"),
        ("seeds: 2", "gamma: .inf", r"spirl\.gamma: inf, must be a finite number"),
        ("seeds: 2", "features: {slope: 0}", r"spirl\.features\.slope: 0.*above 0"),
        ("seeds: 2", "features: {slope: .inf}", r"spirl\.features\.slope: inf.*finite"),
        (
            "seeds: 2",
            "features: {select: fixed, k: 37}",
            r"policies\.frostbite-spirl\.features\.k: 37, but.* has 36",
        ),
        ("seeds: 2", "features: {selct: all}", r"features\.selct: unknown key.*'select'"),
        ("seeds: 2", "features: {select: some}", r"features\.select"),
        ("seeds: 2", "steps: 1600", r"spirl\.learn_start: 1600, must be below steps 1600"),
        ("annotations: {}\n", "", r"annotations: missing"),
        (
            "annotations: {}",
            "annotations: {few: {frames: frostbite, annotator: human, count: 2001}}",
            r"annotations\.few\.count: 2001, must be at most the 2000 of frames/frostbite",
        ),
        ("annotations: {}", "anotations: {}", r"anotations: unknown table.*'annotations'"),
        ("frostbite-mae:", "Frostbite_MAE:", r"a name is a string of a-z, 0-9 and '-' that begins"),
        ("frostbite-mae:", "12:", r"encoders\.12: a name is a string"),
        ("frostbite-mae:", "2024-01-01:", r"encoders\.2024-01-01: a name is a string"),
        ("frostbite-mae:", "-mae:", r"encoders\.-mae: a name is a string"),
        ("frostbite-mae:", f"{'x' * 65}:", r"encoders\.x{65}: a name .* at most 64 long"),
        ("frostbite-mae:", "pixels:", r"encoders\.pixels: is a committed encoder.*another name"),
        ("seeds: 2", "net: tokens", r"spirl\.net: 'tokens', must be a mapping"),
        ("seeds: 2", "net: {name: tokns}", r"spirl\.net\.name: 'tokns' is not a file.*'tokens'"),
        ("seeds: 2", "net: {name: 3}", r"spirl\.net\.name: 3 \(int\), must be str"),
        ("seeds: 2", "net: {name: vector}", r"net\.name: vector is for vector or state, .* tokens"),
        ("seeds: 2", "net: {pad: masket}", r"spirl\.net\.pad: 'masket'"),
        ("seeds: 2", "net: {width: 0}", r"spirl\.net\.width: 0"),
        ("seeds: 2", "net: {wdith: 8}", r"spirl\.net\.wdith: unknown key.*'width'"),
        ("seeds: 2", "features: {pad: masked}", r"features\.pad: unknown key"),
        ("saliency: {}", "saliency: []", r"saliency: missing or not a table"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert re.search(says, mistakes(tmp_path, old, new)), mistakes(tmp_path, old, new)


META = """
frames:
  reach: {env: metaworld/reach?view=upright, source: replay, count: 2000}
  pong: {env: atari/Pong, source: random, count: 2000}
annotations: {}
predictors: {}
saliency: {}
encoders:
  reach-state: {data: frames/reach, model: state, size: 39}
  reach-rgb: {data: frames/reach, model: channels, channels: rgb}
  reach-mmae: {data: frames/reach, model: multimae, modalities: rgb}
policies:
  reach-sac: {env: metaworld/reach?view=upright, encoder: reach-state, agent: sac, seeds: 1}
  reach-cnn: {env: metaworld/reach?view=upright&camera=corner, encoder: reach-rgb, agent: sac,
              net: {filters: 8}}
  reach-mean: {env: metaworld/reach?view=upright, encoder: reach-mmae, agent: sac}
exams: {}
"""


def test_a_policy_on_meta_world(tmp_path: Path) -> None:
    assert load(tmp_path, META).entry("policies", "reach-sac").config.hidden == 1024


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "reach-state, agent: sac",
            "reach-state, agent: rainbow",
            r"sac\.agent: rainbow has no net",
        ),
        (
            "reach-state, agent: sac",
            "pixels, agent: rainbow",
            r"sac\.agent: rainbow needs discrete actions, but those of .* are continuous",
        ),
        (
            "metaworld/reach?view=upright, encoder: reach-state",
            "atari/Pong, encoder: reach-state",
            r"sac\.env: atari/Pong has no state, which reach-state needs",
        ),
        (
            "metaworld/reach?view=upright, encoder",
            "metaworld/door-open, encoder",
            r"sac\.env: view is reference, but upright in .* frames reach; write \?view=upright",
        ),
        (
            "saliency: {}",
            "saliency: {x: {frames: reach, by: encoders/pixels}}",
            r"saliency\.x\.by: encoders/pixels, of model pixels, has no saliency map",
        ),
        (
            "saliency: {}",
            "saliency: {x: {frames: reach, by: encoders/reach-mmae}}",  # has no saliency either
            r"saliency\.x\.by: encoders/reach-mmae, of model multimae, has no saliency map",
        ),
        (
            "saliency: {}",
            "saliency: {x: {frames: reach, by: policies/reach-sac}}",
            r"saliency\.x\.by.*policies/reach-sac",
        ),
        ("camera=corner", "camera=corner2", r"cnn\.env: camera is corner2"),
        (
            "camera=corner",
            "camera=cornr",
            r"cnn\.env: .*camera: 'cornr', must be corner or corner2 or",
        ),
        ("camera=corner", "camra=corner", r"cnn\.env: .*no option 'camra'; metaworld has view, "),
        (  # a committed encoder fits any environment that has what it reads
            "metaworld/reach?view=upright, encoder: reach-state",
            "atari/Pong, encoder: state",
            r"sac\.env: atari/Pong has no state, which state needs",
        ),
        (  # one token needs no aggregator
            "reach-mmae, agent: sac",
            "reach-mmae, agent: sac, net: {pad: masked}",
            r"policies\.reach-mean\.net\.pad: unknown key",
        ),
        ("filters: 8", "channels: [4, 8]", r"cnn\.net\.channels: unknown key"),
        ("size: 39}", "size: 0}", r"encoders\.reach-state\.size: 0"),
        ("count: 2000}\n  pong", "count: 2000, hidden: 0}\n  pong", r"frames\.reach\.hidden: 0"),
        ("count: 2000}\n  pong", "count: 2000, steps: 1999}\n  pong", r"reach\.count.*1999 steps"),
    ],
)
def test_entries_that_cannot_work_together_are_named(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert old in META
    with pytest.raises(FoveaError) as raised:
        load(tmp_path, META.replace(old, new))
    assert re.search(says, str(raised.value)), str(raised.value)


EXAMS = """
frames:
  pac: {env: "atari/MsPacman?screen=gray84", source: random, count: 2000}
  other: {env: "atari/MsPacman?screen=gray84", source: random, count: 2000, seed: 1}
  pong: {env: "atari/Pong?screen=gray84", source: random, count: 2000}
  colour: {env: atari/MsPacman, source: random, count: 2000}
annotations:
  objects: {frames: other, annotator: objects}
  clicks: {frames: pac, annotator: simulated}
  human: {frames: pong, annotator: human}
predictors:
  taught: {data: annotations/clicks, model: student, size: 64}
  copied: {data: saliency/taught, model: student, size: 64}
  motion: {data: frames/pac, model: motion}
saliency:
  taught: {frames: other, by: predictors/taught}
encoders:
  mask: {data: frames/pac, model: attention}
  points: {data: frames/pac, model: transporter}
  mae: {data: frames/colour, model: mae}
policies:
  masked: {env: "atari/Pong?screen=gray84", encoder: mask, agent: a2c}
  plain: {env: "atari/MsPacman?screen=gray84", encoder: pixels, agent: a2c}
  own: {env: "atari/MsPacman?screen=gray84", encoder: pixels, agent: a2c,
        net: {name: masked_cnn, mask: top_down}}
  rainbow: {env: "atari/MsPacman?screen=gray84", encoder: mask, agent: rainbow}
  tokens: {env: atari/MsPacman, encoder: mae, agent: rainbow}
exams:
  x: {truth: annotations/objects, by: encoders/mask, keypoints: 7}
"""


def test_a_policy_that_attends_labels_saliency(tmp_path: Path) -> None:
    text = EXAMS.replace("by: predictors/taught}", "by: policies/{}}")
    rainbow = '  dqn: {env: "atari/Pong?screen=gray84", encoder: mask, agent: rainbow}\n'
    for name in ("masked", "dqn"):
        written = text.replace("{}}", f"{name}}}").replace("  plain:", f"{rainbow}  plain:")
        entry = load(tmp_path, written).entry("saliency", "taught")
        assert entry.inputs() == {"frames": "frames/other", "by": f"policies/{name}"}


def test_exams_of_every_kind_of_source_are_good(tmp_path: Path) -> None:
    """Another game's policy too; and what learned from clicks on other frames."""
    for by in (
        "encoders/points", "predictors/motion", "predictors/taught", "policies/masked",
        "policies/own", "policies/rainbow",
    ):  # fmt: skip
        entry = load(tmp_path, EXAMS.replace("encoders/mask, k", f"{by}, k")).entry("exams", "x")
        assert entry.inputs() == {"truth": "annotations/objects", "by": by}
    assert load(tmp_path, EXAMS.replace(", keypoints: 7", "")).entry("exams", "x").resolved() == {
        "truth": "annotations/objects", "by": "encoders/mask", "keypoints": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("annotations/objects, by", "annotations/objcts, by",
         r"x\.truth: 'annotations/objcts' names no entry of annotations; .*'annotations/ob"),
        ("annotations/objects, by", "objects, by", r"x\.truth: 'objects' names no entry"),
        ("annotations/objects, by", "frames/other, by", r"x\.truth: 'frames/other' names no"),
        ("encoders/mask, k", "encoders/msk, k", r"x\.by: 'encoders/msk' .*'encoders/mask'"),
        ("encoders/mask, k", "saliency/taught, k", r"x\.by: .*or encoders or policies"),
        ("by: predictors/taught}", "by: policies/plain}",
         r"saliency\.taught\.by: policies/plain, its net nature_cnn .* attends to no part"),
        ("by: predictors/taught}", "by: policies/tokens}",
         r"saliency\.taught\.by: policies/tokens is for images \(3, 96, 96\)"),
        ("by: predictors/taught}\nencoders:",
         "by: policies/masked}\nencoders:\n  both: {data: saliency/taught, model: channels}",
         r"encoders\.both\.data: the maps of saliency/taught are the attention of policies/masked"),
        ("encoders/mask, k", "encoders/pixels, k", r"x\.by: encoders/pixels, of model pixels, has"),
        ("encoders/mask, k", "encoders/mae, k",
         r"x\.by: encoders/mae is for images \(3, 96, 96\), those of frames/other are"),
        ("encoders/mask, k", "policies/tokens, k",
         r"x\.by: policies/tokens is for images \(3, 96, 96\), those of frames/other are"),
        ("encoders/mask, k", "policies/plain, k",
         r"x\.by: policies/plain, its net nature_cnn on encoders/pixels, attends to no part"),
        ("annotations/objects, by: encoders/mask, keypoints: 7",
         "annotations/clicks, by: predictors/taught",
         r"x\.by: predictors/taught is trained on annotations of frames/pac itself"),
        ("encoders/mask, k", "predictors/copied, k",  # its maps are of them
         r"x\.by: predictors/copied is trained on annotations of frames/other itself"),
        ("keypoints: 7", "keypoints: 0", r"x\.keypoints: 0, must be at least 1"),
        ("keypoints: 7", "keypoints: 50", r"x\.keypoints: 50, must be at most the 49 cells of 7x7"),
        ("encoders/mask, keypoints: 7", "encoders/points, keypoints: 10",
         r"x\.keypoints: 10, but encoders/points has 7 keypoints of its own"),
        ("annotations/objects, by", "annotations/human, by",
         r"x\.keypoints: 7, needs a truth of `annotator: objects`.*annotations/human is human"),
        ("keypoints: 7", "keypoint: 7", r"x\.keypoint: unknown key; did you mean 'keypoints'"),
        ("frames: other, annotator", "frames: pong, annotator",
         r"annotations\.objects: annotator objects: knows the objects of metaworld/"),
        ("annotator: objects", "annotator: gaze",
         r"annotations\.objects: annotator gaze: the frames of atari/MsPacman\?.* have no gaze"),
        ("source: random", "source: atari_head",
         r"annotations\.clicks: annotator simulated: reads RAM, but the frames' source stores"),
    ],
)  # fmt: skip
def test_an_exam_that_cannot_be_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in EXAMS
    with pytest.raises(FoveaError) as raised:
        load(tmp_path, EXAMS.replace(old, new))
    assert re.search(says, str(raised.value)), str(raised.value)


MASKS = """
frames:
  assault: {env: "atari/Assault?screen=gray84", source: random, count: 500}
annotations: {}
predictors: {}
saliency: {}
encoders:
  mask: {data: frames/assault, model: attention}
policies:
  frozen: {env: "atari/Carnival?screen=gray84", encoder: mask, agent: a2c}
  rainbow: {env: "atari/Assault?screen=gray84", encoder: mask, agent: rainbow}
  joint: {env: "atari/Assault?screen=gray84", encoder: pixels, agent: ppo,
          net: {name: masked_cnn, mask: joint}}
exams: {}
"""


def test_a_mask_goes_with_any_game_agent_and_way_to_learn_it(tmp_path: Path) -> None:
    params = load(tmp_path, MASKS)
    nets = {entry.name: entry.net for entry in params.tables["policies"].values()}
    assert {name: net and net.name for name, net in nets.items()} == {
        "frozen": "masked_cnn", "rainbow": "data_efficient_cnn", "joint": "masked_cnn",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "Carnival?screen=gray84",
            "Carnival",
            r"frozen\.env: atari/Carnival has images \(3, 96, 96\), but the encoder mask is for "
            r"\(1, 84, 84\)",
        ),
        (
            "Carnival?screen=gray84",
            "Carnival",
            r"frozen\.env: screen is rgb96, but gray84 in its encoder's frames assault",
        ),
        ("mask: joint", "mask: jont", r"joint\.net\.mask: 'jont' .*did you mean 'joint'"),
        (
            "mask: joint",
            "mask: frozen",
            r"joint\.net\.mask: frozen, must be frozen on an encoder with masks",
        ),
        (
            "encoder: mask, agent: a2c",
            "encoder: mask, agent: a2c, net: {mask: joint}",
            r"frozen\.net\.mask: joint, must be frozen on an encoder with masks",
        ),
        (
            "encoder: mask, agent: a2c",
            "encoder: mask, agent: a2c, net: {rl_gradient: false}",
            r"frozen\.net\.rl_gradient: false, must be true with mask: frozen",
        ),
        (
            "agent: ppo",
            "agent: rainbow",
            r"joint\.net: has a loss on rollouts, but the agent learns from replay",
        ),
        (
            "encoder: mask, agent: a2c",
            "encoder: mask, agent: a2c, net: {name: nature_cnn}",
            r"frozen\.net\.name: nature_cnn is for pixels, but the encoder's features are masked",
        ),
        (
            "encoder: mask, agent: a2c",
            "encoder: mask, agent: a2c, net: {name: masked_cn}",
            r"frozen\.net\.name: 'masked_cn' is not a file.*'masked_cnn'",
        ),
        (
            "encoder: mask, agent: rainbow",
            "encoder: pixels, agent: rainbow, net: {name: deep_cnn, layers: 60}",
            r"rainbow\.net: image: 84x84 is too small for 60 convolutions",
        ),
        (
            "encoder: mask, agent: a2c",
            "encoder: mask, agent: a2c, num_envs: 0",
            r"frozen\.num_envs: 0, must be at least 1",
        ),
        (
            "encoder: mask, agent: a2c",
            "encoder: mask, agent: a2c, unroll: 7",
            r"frozen\.steps: 10000000, must be a multiple of num_envs \* unroll \(112\)",
        ),
    ],
)
def test_masks_that_do_not_fit_are_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in MASKS
    with pytest.raises(FoveaError) as raised:
        load(tmp_path, MASKS.replace(old, new))
    assert re.search(says, str(raised.value)), str(raised.value)


@pytest.mark.parametrize("agent", ["sac", "rainbow"])
@pytest.mark.parametrize(
    ("encoders", "policy"),
    [
        ("none", {"pool": "mean"}),
        ("mean", {"pool": "none"}),
        ("none", {}),
    ],
)
def test_a_policy_chooses_all_tokens_or_one(
    tmp_path: Path, agent: str, encoders: str, policy: dict[str, str]
) -> None:
    env = "metaworld/reach" if agent == "sac" else "atari/Pong"
    text = f"""
frames: {{f: {{env: {env}, source: random, count: 10}}}}
annotations: {{}}
predictors: {{}}
saliency: {{}}
encoders:
  e: {{data: frames/f, model: multimae, modalities: rgb, features: {{pool: {encoders}}}}}
policies:
  p: {{env: {env}, encoder: e, agent: {agent}, features: {json.dumps(policy)}}}
exams: {{}}
"""
    entry = load(tmp_path, text).entry("policies", "p")
    assert entry.features == policy and entry.net
    one = policy.get("pool", encoders) != "none"
    assert entry.net.name == ("vector" if one and agent == "sac" else "tokens")


def test_a_policy_chooses_its_agents_net(tmp_path: Path) -> None:
    """A net other than the agent's default, and keys; all are in the manifest's entry."""
    text = GOOD.replace("encoder: frostbite-mae", "encoder: pixels")
    for net, resolved in (
        ("{}", {"name": "data_efficient_cnn"}),
        ("{name: deep_cnn, layers: 3}", {"name": "deep_cnn", "layers": 3, "filters": 32}),
    ):
        written = text.replace("seeds: 2", f"seeds: 2, net: {net}")
        entry = load(tmp_path, written).entry("policies", "frostbite-spirl").resolved()
        assert resolved.items() <= entry["net"].items()
        assert "features" not in entry


def test_every_mistake_of_one_entry_is_listed(tmp_path: Path) -> None:
    """Values out of range and unknown keys, as far as they can be read."""
    text = GOOD.replace("seeds: 2", "seeds: 0, games: 0, epsilon: 2.0, net: {wide: 1, pda: zero}")
    with pytest.raises(FoveaError) as raised:
        load(tmp_path, text)
    for key in ("seeds", "games", "epsilon", "net.wide", "net.pda"):
        assert f"\n  policies.frostbite-spirl.{key}: " in str(raised.value)


def test_actions_are_sampled_from_policies_alone(tmp_path: Path) -> None:
    """A change of it trains nothing again."""
    text = GOOD.replace("seeds: 2", "seeds: 2, sample: true")
    with pytest.raises(FoveaError, match=r"spirl\.sample: true, must be false with agent rainbow"):
        load(tmp_path, text)
    text = text.replace("encoder: frostbite-mae, agent: rainbow", "encoder: pixels, agent: ppo")
    text = text.replace("steps: 3000", "steps: 2048")
    entry = load(tmp_path, text).entry("policies", "frostbite-spirl")
    assert entry.keys.sample and "sample" not in entry.resolved(EVALUATION_KEYS)


TOP_DOWN = "steps: 3200, seeds: 2, net: {name: top_down}"
TRAINED_BY_IMPALA = GOOD.replace(
    "env: atari/Frostbite, encoder: frostbite-mae, agent: rainbow, seeds: 2",
    f'env: "atari/Breakout?screen=gray84", encoder: pixels, agent: impala, {TOP_DOWN}',
)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("attention_threshold: 1.5", r"attention_threshold: 1\.5, must be .*1"),
        ("attention_threshold: -0.1", r"attention_threshold: -0\.1, must be .*0"),
        ("evaluate_env: 3", r"evaluate_env: 3 \(int\), must be"),
        ("evaluate_env: atari/Breakot", r"evaluate_env: .*did you mean Breakout"),
        (
            "evaluate_env: atari/Breakout",
            r"spirl\.evaluate_env: in atari/Breakout screen is rgb96, but gray84 in .*name an env",
        ),
        (
            'evaluate_env: "atari/MsPacman?screen=gray84"',
            r"evaluate_env: in atari/MsPacman\S+ the actions are others than in atari/Breakout",
        ),
        ("evaluate_env: gym/CartPole-v1", r"suite is gym, but atari in atari/Breakout"),
    ],
)
def test_impossible_evaluations_are_refused(tmp_path: Path, key: str, says: str) -> None:
    text = TRAINED_BY_IMPALA.replace("seeds: 2", f"seeds: 2, {key}")
    with pytest.raises(FoveaError, match=says):
        load(tmp_path, text)


@pytest.mark.parametrize("net", ["fls", "impala_resnet", "nature_cnn"])
def test_a_threshold_of_nets_without_one_is_refused(tmp_path: Path, net: str) -> None:
    text = TRAINED_BY_IMPALA.replace("seeds: 2", "attention_threshold: 0.1")
    with pytest.raises(FoveaError, match=rf"attention_threshold: 0\.1, but the net {net} has no"):
        load(tmp_path, text.replace("name: top_down", f"name: {net}"))


def test_keys_of_an_evaluation_train_nothing_again(tmp_path: Path) -> None:
    other = "atari/Breakout?screen=gray84&infinite=true"
    keys = f'attention_threshold: 0.1, evaluate_env: "{other}"'
    text = TRAINED_BY_IMPALA.replace("seeds: 2", f"seeds: 2, {keys}")
    entry = load(tmp_path, text).entry("policies", "frostbite-spirl")
    assert (entry.keys.attention_threshold, entry.keys.evaluate_env) == (0.1, other)
    plain = load(tmp_path, TRAINED_BY_IMPALA).entry("policies", "frostbite-spirl")
    assert entry.resolved(EVALUATION_KEYS) == plain.resolved(EVALUATION_KEYS)


def test_every_mistake_is_listed_at_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace("count: 2000", "count: -1")
        .replace("patch: 16", "patch: x")
        .replace("seeds", "sedes")
    )
    with pytest.raises(FoveaError) as raised:
        load(tmp_path, text)
    assert str(raised.value).count("\n  ") == 3


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "frames: {}\nframes: {}"])
def test_malformed_params_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FoveaError, match=r"params\.yaml"):
        load(tmp_path, text)


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    checked = load(tmp_path, GOOD.replace("patch: 16", "base_lr: 1e-4"))
    assert checked.entry("encoders", "frostbite-mae").config.base_lr == 1e-4


@pytest.mark.parametrize("name", sorted(recipes()))
def test_recipes_are_valid(name: str) -> None:
    assert list(params.load(recipes()[name]))


def test_params_as_committed_is_the_quick_recipe() -> None:
    assert params.PARAMS.read_bytes() == recipes()["quick"].read_bytes()


LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
FRAMES = "frames:\n  x: {env: atari/Breakout, source: random, count: %s}\n"
HOSTILE = {
    "billion laughs": ("a0: &a0 [lol, lol]\n" + LAUGHS + FRAMES % "*a8", "aliases expanded"),
    "a few laughs": (FRAMES % f"[{', '.join(['[1, 2, 3]'] * 3000)}]", "frames.x.count: "),
    "holds itself": ("frames: &a {x: *a}\n", "frames.x.x.x.*: nested more than 32 deep"),
    "deep": (FRAMES % ("[" * 100_000 + "]" * 100_000), "nested more than 32 deep"),
    "deep in a block": ("frames:\n" + "- " * 20_000 + "x\n", "nested more than 32 deep"),
    "digits": (FRAMES % ("9" * 5_000), "not valid YAML"),
    "letters": (FRAMES % ("x" * 100_000), "frames.x.count: a text of 100000 characters"),
    "a long key": (
        "frames:\n  ? %s\n  : {}\n" % ("x" * 100_000),
        "frames: a key of 100000 characters",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_params_are_refused_at_once(name: str, tmp_path: Path) -> None:
    """With a message of a few lines; Python itself allows 4,300 digits and a thousand levels."""
    text, says = HOSTILE[name]
    (tmp_path / "params.yaml").write_text(text)
    began = time.monotonic()
    with pytest.raises(FoveaError, match=says) as caught:
        params.load(tmp_path / "params.yaml")
    assert len(str(caught.value)) < 2_000 and str(tmp_path) in str(caught.value)
    assert time.monotonic() - began < 3  # a tenth of it, but for a busy machine
