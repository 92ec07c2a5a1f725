"""From a learner that is given the state to evaluated policies, on Meta-World, by the stages."""

from __future__ import annotations

import json

import pytest

from datasets.shards import read_frames
from tests.pipeline.conftest import Project

REACH = """
frames:
  reach: {env: metaworld/reach?view=upright, source: replay, count: 60, streams: 2, steps: 540,
          learn_start: 510, hidden: 16}
annotations: {}
predictors: {}
saliency: {}
encoders:
  reach-state: {data: frames/reach, model: state}
policies:
  reach-sac: {env: metaworld/reach?view=upright, encoder: reach-state, agent: sac, seeds: 1,
              steps: 530, learn_start: 510, hidden: 16, checkpoint_every: 530, games: 2, epsilon: 0}
"""


@pytest.mark.slow
def test_a_chain_on_meta_world(project: Project) -> None:
    (project.folder / "params.yaml").write_text(REACH)
    project.built("collect", "reach")
    collected = project.artifacts / "frames" / "reach"
    frames = read_frames(collected)
    assert len(frames) == 60 and frames.action.shape == (60, 4)
    metrics = json.loads((collected / "manifest.json").read_text())["metrics"]
    assert metrics["learner_steps"] == 540 and metrics["learner_updates"] == 30
    assert 0 <= metrics["learner_last_100_games_success"] <= 1

    project.built("pretrain", "reach-state")
    project.built("train", "reach-sac")
    project.built("evaluate", "reach-sac")
    folder = project.artifacts / "evaluations" / "reach-sac"
    assert (folder / "video.mp4").stat().st_size > 1_000
    evaluation = json.loads((folder / "evaluation.json").read_text())
    for point in [*evaluation["seeds"][0]["checkpoints"], evaluation["random"]]:
        assert [type(success) for success in point["successes"]] == [bool, bool]
        assert point["lengths"] == [500, 500]
    metrics = json.loads((folder / "manifest.json").read_text())["metrics"]
    assert {"success", "random_success", "mean_return"} <= metrics.keys()
    curve = (project.artifacts / "policies" / "reach-sac" / "seed-0" / "curve.csv").read_text()
    assert curve.startswith("step,return,length,success\n500,")
