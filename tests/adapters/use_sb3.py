"""Run alone, with Stable-Baselines3: argv names this folder and the folders of artifacts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path += sys.argv[1:3]
import fovea_encoder  # type: ignore[import-not-found]
import torch
from frames import Frames  # type: ignore[import-not-found]
from stable_baselines3 import DQN, PPO


def check(folder: Path) -> None:
    """The extractor gives the flat form, and policies on it train, are saved and are loaded."""
    image, _, flat = torch.load(folder.with_name(f"{folder.name}-example.pt"))
    env = Frames(image.movedim(1, -1).numpy())
    kwargs = fovea_encoder.policy_kwargs(folder)
    model: Any = PPO("CnnPolicy", env, policy_kwargs=kwargs, n_steps=16, batch_size=8, seed=0)
    features = model.policy.extract_features(image, model.policy.features_extractor)
    assert (features.cpu() - flat).abs().max() <= 1e-5, folder.name
    model.learn(32)
    again = model.policy.extract_features(image, model.policy.features_extractor)
    assert torch.equal(again, features), "training changed the encoder"
    saved = folder.with_name(f"{folder.name}.zip")
    model.save(saved)
    loaded: Any = PPO.load(saved)
    action = model.predict(env.reset()[0], deterministic=True)[0]
    assert loaded.predict(env.reset()[0], deterministic=True)[0] == action
    DQN("CnnPolicy", env, policy_kwargs=kwargs, buffer_size=64, learning_starts=8).learn(24)
    try:
        PPO("CnnPolicy", env, policy_kwargs=kwargs | {"normalize_images": True}).learn(8)
    except ValueError as error:
        assert "normalize_images=False" in str(error), error
    else:
        raise AssertionError("normalised images")


assert not {"pretrain", "datasets"} & set(sys.modules)
for name in sys.argv[2:]:
    check(Path(name))
