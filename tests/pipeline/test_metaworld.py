"""From a learner on the state to evaluated policies, on Meta-World, by the stages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

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
exams: {}
"""

CLICKED = """
frames:
  drawer: {env: metaworld/drawer-open, source: expert, count: 40, streams: 2}
annotations:
  drawer: {frames: drawer, annotator: simulated, count: 8}
predictors:
  picanet: {data: annotations/drawer, model: picanet, size: 32, epochs: 1}
  student: {data: saliency/picanet, model: student, epochs: 1}
saliency:
  picanet: {frames: drawer, by: predictors/picanet}
  student: {frames: drawer, by: predictors/student}
encoders:
  multimae: {data: saliency/student, model: multimae, dim: 16, depth: 1, heads: 2, decoder_dim: 16,
             decoder_depth: 1, decoder_heads: 2, batch_size: 20, epochs: 1, warmup_epochs: 0}
policies:
  visarl: {env: metaworld/drawer-open, encoder: multimae, agent: sac, seeds: 1, steps: 530,
           learn_start: 510, hidden: 16, checkpoint_every: 530, games: 1, epsilon: 0}
exams: {}
"""


@pytest.mark.slow
def test_visarl_from_clicks_to_a_video_with_its_saliency(project: Project) -> None:
    """The encoder carries the student to the policy, and the video has the student's maps."""
    (project.folder / "params.yaml").write_text(CLICKED)
    for stage, name in (
        ("collect", "drawer"),
        ("annotate", "drawer"),
        ("fit", "picanet"),
        ("label", "picanet"),
        ("fit", "student"),
        ("label", "student"),
        ("pretrain", "multimae"),
        ("train", "visarl"),
        ("evaluate", "visarl"),
    ):
        project.built(stage, name)
    folder = project.artifacts / "evaluations" / "visarl"
    metrics = json.loads((folder / "manifest.json").read_text())["metrics"]
    assert metrics["simulated_clicks"] is True and metrics["video_shows"] == "saliency"
    assert (folder / "video.mp4").stat().st_size > 1_000


RENDERED_FRAMES = (
    "frames:\n  reach: {env: metaworld/reach, source: expert, count: 600, streams: 2}\n"
)


def renderers(process: subprocess.Popen[str]) -> list[int]:
    """The processes of a stage that have loaded Meta-World's renderer."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    maps = {int(pid): Path(f"/proc/{pid}/maps").read_text() for pid in children}
    return [pid for pid, loaded in maps.items() if re.search("libEGL|libOSMesa", loaded)]


@pytest.mark.slow
def test_a_renderer_that_is_killed(project: Project) -> None:
    """The stage ends with a message, nothing is published, and the next run resumes."""
    project.edit("frames:\n", RENDERED_FRAMES)
    process = project.start("collect", "reach")
    deadline = time.monotonic() + 120
    while not (workers := renderers(process)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)
    os.kill(workers[0], signal.SIGKILL)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and "Traceback" not in output, output
    assert "collect reach: a worker was killed by SIGKILL; run the stage again" in output
    assert not (project.artifacts / "frames/reach").exists()
    project.built("collect", "reach")
    assert len(read_frames(project.artifacts / "frames/reach")) == 600


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
