"""An artifact's own module, in a process that cannot import this repository."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain import fovea_encoder
from tests.adapters.artifacts import FORMS, seal, write

# argv: artifacts' folders. Features and flat forms are those of the repository's encoders.
ALONE = """
import sys
from pathlib import Path
sys.path.append(sys.argv[1])
import fovea_encoder
import torch
assert not {"pretrain", "datasets", "gymnasium", "safetensors"} & set(sys.modules)
import gymnasium, numpy as np
def check(folder):
    image, expected, flat = torch.load(folder.with_name(folder.name + "-example.pt"))
    encoder = fovea_encoder.load(folder)
    obs = encoder(image)
    assert obs.keys() == expected.keys()
    for key, value in expected.items():
        assert obs[key].dtype == value.dtype and obs[key].shape == value.shape
        assert (obs[key].double() - value.double()).abs().max() <= 1e-5, key
    assert encoder.width == flat.shape[1] and encoder.images == {"env": "atari/Pong"}
    assert (encoder.flat(image) - flat).abs().max() <= 1e-5
    last = image.movedim(1, -1)
    assert torch.equal(encoder.flat(last), encoder.flat(image))
    stacked = torch.cat([image[:1], image[1:2]], dim=1)  # two frames along the channels
    assert (encoder.flat(stacked)[0] - flat[:2].flatten()).abs().max() <= 1e-5
    assert not list(encoder.parameters()) and not encoder.state_dict()
    try:
        encoder.flat(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    except ValueError as error:
        assert "needs images uint8" in str(error) and "images.json" in str(error), error
    else:
        raise AssertionError("images of another size")

    class Frames(gymnasium.Env):
        action_space = gymnasium.spaces.Discrete(2)
        observation_space = gymnasium.spaces.Box(0, 255, last.shape[1:], np.uint8)
        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.now = 0
            return last[0].numpy(), {}
        def step(self, action):
            self.now += 1
            return last[self.now % len(last)].numpy(), 0.0, False, False, {}
    env = fovea_encoder.Observation(Frames(), folder)
    assert env.reset()[0] in env.observation_space
    for number in range(3):
        assert np.abs(env.step(0)[0] - flat[(number + 1) % 3].numpy()).max() <= 1e-5
    if last.shape[-1] == 1:  # gray as Gymnasium's own wrappers have it
        plain = gymnasium.wrappers.ReshapeObservation(Frames(), tuple(last.shape[1:3]))
        assert np.array_equal(fovea_encoder.Observation(plain, folder).reset()[0], env.reset()[0])
    stack = fovea_encoder.Observation(gymnasium.wrappers.FrameStackObservation(Frames(), 2), folder)
    assert stack.reset()[0].shape == (2 * encoder.width,) == stack.observation_space.shape
for folder in map(Path, sys.argv[1:]):
    check(folder)
try:
    fovea_encoder.Observation(gymnasium.make("CartPole-v1"))
except ValueError as error:
    assert "needs images uint8" in str(error), error
else:
    raise AssertionError("observations that are no images")
for missing, name, package in (
    ("stable_baselines3", "Extractor", "stable-baselines3"),
    ("torchrl", "Transform", "torchrl"),
):
    sys.modules[missing] = None
    try:
        getattr(fovea_encoder, name)
    except ImportError as error:
        assert str(error) == f"fovea_encoder.{name}: `pip install {package}` first"
    else:
        raise AssertionError(missing)
"""


@pytest.mark.slow
def test_artifacts_are_used_without_the_repository(tmp_path: Path) -> None:
    for form in FORMS:
        write(form, tmp_path / form)
    command = [sys.executable, "-I", "-c", ALONE, *(str(tmp_path / form) for form in FORMS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_damage_and_newer_formats_are_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "pixels"
    write("pixels", folder)

    def message() -> str:
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            fovea_encoder.load(folder)
        return str(error.value)

    program = folder / "encoder.pt2"
    whole = program.read_bytes()
    program.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert f"{program}: not the bytes that manifest.json lists" in message()
    program.unlink()
    assert str(program) in message()
    program.write_bytes(whole)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace("fovea/1", "fovea/2"))
    assert f"{manifest}: damaged" in message()
    seal(folder, form="fovea/2")
    assert f"{manifest}: format 'fovea/2', but this file reads 'fovea/1'" in message()
    header = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(header | {"format": "fovea-encoder/2"}))
    seal(folder)
    assert "config.json: format 'fovea-encoder/2'" in message()
    manifest.write_text("[")
    assert f"{manifest}: damaged" in message()
