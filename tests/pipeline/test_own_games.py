"""From frames to an evaluated policy in environments of Gymnasium, by the stages."""

from __future__ import annotations

import json

import pytest

from datasets.shards import read_frames
from tests.pipeline.conftest import Project

OWN = """
frames:
  reacher: {env: gym/Reacher-v5?height=48&width=48, source: random, count: 40, streams: 2}
annotations: {}
predictors: {}
saliency: {}
encoders:
  mae: {data: frames/reacher, model: mae, patch: 16, dim: 16, depth: 1, heads: 2, decoder_dim: 16,
        decoder_depth: 1, decoder_heads: 2, batch_size: 20, epochs: 1, warmup_epochs: 0}
policies:
  reacher: {env: gym/Reacher-v5?height=48&width=48, encoder: mae, agent: sac, hidden: 16, seeds: 1,
            steps: 60, learn_start: 30, checkpoint_every: 60, games: 1}
  runner: {env: gym/tests.datasets.own_games:own/Runner-v0?height=48&width=48, encoder: mae,
           agent: rainbow, n_step: 3, seeds: 1, steps: 60, learn_start: 30, checkpoint_every: 60}
exams: {}
"""


@pytest.mark.slow
def test_policies_train_in_environments_of_gymnasium(project: Project) -> None:
    """Continuous actions, and discrete ones in an environment of the user's with that encoder."""
    (project.folder / "params.yaml").write_text(OWN)
    for stage, name in (
        ("collect", "reacher"),
        ("pretrain", "mae"),
        ("train", "reacher"),
        ("evaluate", "reacher"),
        ("train", "runner"),
    ):
        project.built(stage, name)
    frames = read_frames(project.artifacts / "frames/reacher")
    assert frames.images.shape == (40, 48, 48, 3) and frames.images.std() > 10
    scores = json.loads((project.artifacts / "evaluations/reacher/evaluation.json").read_text())
    (checkpoint,) = scores["seeds"][0]["checkpoints"]
    assert checkpoint["step"] == 60 and checkpoint["lengths"] == [50]
    metrics = json.loads((project.artifacts / "policies/runner/manifest.json").read_text())
    assert metrics["metrics"]["failed"] == 0
