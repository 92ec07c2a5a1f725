"""Run alone, with TorchRL: argv names this folder and the folders of artifacts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path += sys.argv[1:3]
import fovea_encoder  # type: ignore[import-not-found]
import torch
from frames import Frames  # type: ignore[import-not-found]
from torchrl.envs import GymWrapper, TransformedEnv
from torchrl.envs.utils import check_env_specs


def check(folder: Path) -> None:
    """The transform adds the flat form, in resets and in steps, as its specification states."""
    image, _, flat = torch.load(folder.with_name(f"{folder.name}-example.pt"))
    plain: Any = GymWrapper(Frames(image.movedim(1, -1).numpy()))
    keys = list(plain.observation_spec.keys())  # TorchRL's own: pixels, or observation for gray
    transform = fovea_encoder.Transform(folder, in_keys=keys)
    env: Any = TransformedEnv(plain, transform)
    check_env_specs(env)
    rollout = env.rollout(6)
    for key, first in (("features", 0), (("next", "features"), 1)):
        expected = torch.stack([flat[(first + step) % len(flat)] for step in range(6)])
        assert (rollout[key] - expected).abs().max() <= 1e-5, (folder.name, key)
    assert env.observation_spec["features"].shape == flat.shape[1:]


assert not {"pretrain", "datasets"} & set(sys.modules)
for name in sys.argv[2:]:
    check(Path(name))
