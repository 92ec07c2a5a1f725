"""A seed whose error map becomes NaN or infinite ends; others continue, and later stages
report it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pipeline.runtime.artifact import open_artifact
from tests.pipeline.conftest import CODE, Project

# `pipeline.train`, but at some map of one seed a weight of the decoder is spoilt: from there on
# the map is NaN, while what the policy gets of each patch would look sound.
PLANTED = """
import runpy, torch
from pipeline.parts import policies

original = policies.fresh_policy

def planted(spec, encoder, seed):
    policy = original(spec, encoder, seed)
    errors, maps = policy.encoder.errors, []
    def spoilt(image):
        maps.append(image)
        if seed == {seed} and len(maps) == {at}:
            policy.encoder.model.mask_token.data[0, 0, 0] = torch.nan
        return errors(image)
    policy.encoder.errors = spoilt
    return policy

policies.fresh_policy = planted
runpy.run_module("pipeline.train", run_name="__main__", alter_sys=True)
"""


def train_planted(project: Project, seed: int, at: int) -> tuple[int, str]:
    """Train breakout-spirl with the fault in one seed, from its `at`-th map on."""
    code = PLANTED.replace("{seed}", str(seed)).replace("{at}", str(at))
    done = subprocess.run(
        [sys.executable, "-c", code, "breakout-spirl"],
        cwd=project.folder,
        env=os.environ | {"PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_a_map_of_nan_ends_its_seed_only(on_built: Project) -> None:
    spirl = "breakout-spirl: {env: atari/Breakout, encoder: breakout-mae, agent: rainbow, seeds: "
    on_built.edit(f"{spirl}1", f"{spirl}2")
    code, output = train_planted(on_built, seed=1, at=89)
    assert code == 0, output
    policy = on_built.artifacts / "policies/breakout-spirl"
    assert (policy / "seed-0/metrics.json").exists()
    # The first frame of the episode comes before those of the steps.
    failed = json.loads((policy / "seed-1/failed.json").read_text())
    assert failed["step"] == 88
    assert failed["error"].startswith("seed 1: the encoder's features are not finite at step 88;")
    assert sorted(path.name for path in (policy / "seed-1").glob("weights-*")) == [
        "weights-0000040.safetensors",
        "weights-0000080.safetensors",
    ]

    on_built.built("evaluate", "breakout-spirl")
    evaluation = on_built.artifacts / "evaluations/breakout-spirl/evaluation.json"
    seeds = json.loads(evaluation.read_text())["seeds"]
    assert [seed["failed"] for seed in seeds] == [None, failed["error"]]
    assert [seed["checkpoints"][-1]["step"] for seed in seeds] == [160, 80]
    on_built.built("report")
    page = (on_built.artifacts / "report/index.html").read_text("utf-8")
    assert "1 of 2 seeds failed" in page
    assert "features are not finite at step 88" in page


@pytest.mark.slow
def test_if_every_seed_failed_it_is_reported(on_built: Project) -> None:
    """Without a checkpoint of any, the policy counts as the random one; nothing else is stopped."""
    code, output = train_planted(on_built, seed=0, at=29)
    assert code == 0, output
    assert "policies.breakout-spirl: every seed failed; the first: seed 0:" in output
    assert "not finite at step 28" in output
    on_built.built("evaluate", "breakout-spirl")
    folder = on_built.artifacts / "evaluations/breakout-spirl"
    evaluation = json.loads((folder / "evaluation.json").read_text())
    (seed,) = evaluation["seeds"]
    assert "not finite at step 28" in seed["failed"] and seed["checkpoints"] == []
    assert evaluation["random"]["returns"] and not (folder / "video.mp4").exists()
    on_built.built("report")
    page = (on_built.artifacts / "report/index.html").read_text("utf-8")
    assert "1 of 1 seeds failed" in page
    metrics = open_artifact("evaluations/breakout-spirl", on_built.artifacts).manifest["metrics"]
    assert metrics["mean_return"] == metrics["random_mean_return"] and metrics["failed_seeds"] == 1
