"""What the making of frames came to: how it is kept, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datasets.errors import FoveaError
from pipeline import params
from pipeline.commands.recipe import recipes
from pipeline.results.collected import COLLECTED, add_frames
from pipeline.results.settings import differences, home_of
from pipeline.runtime import artifact

NAME = "drawer-open-learned"
ENTRY = params.load(recipes()["visarl-state"]).entry("frames", NAME)


def collected(root: Path, name: str = NAME, **change: Any) -> Path:
    """Artifacts with frames, which tell of a learner, and the record of their making."""
    folder = root / "frames" / name
    folder.mkdir(parents=True)
    metrics = {"frames": 8000, "learner_last_100_games_success": 0.5}
    artifact.seal(
        folder, f"frames/{name}", entry=ENTRY.resolved() | change, inputs={}, metrics=metrics
    )
    (root / ".runs").mkdir()
    made = artifact.open_artifact(f"frames/{name}", root)
    run = {"commit": "abc", "digest": made.digest}
    (root / ".runs" / f"collect-{name}.json").write_text(json.dumps(run))
    return root


def test_frames_are_kept_with_their_run(tmp_path: Path) -> None:
    root = collected(tmp_path / "artifacts")
    path = add_frames(NAME, "a note", root=root, folder=tmp_path / "kept")
    kept = json.loads(path.read_text())
    assert path.name == f"{NAME}.json" and kept["note"] == "a note"
    assert kept["metrics"]["learner_last_100_games_success"] == 0.5
    assert kept["run"]["commit"] == "abc" and kept["digest"] == kept["run"]["digest"]


def test_frames_at_other_settings_or_of_no_recipe_are_refused(tmp_path: Path) -> None:
    root = collected(tmp_path / "other", steps=2_000)
    with pytest.raises(FoveaError, match=f"frames/{NAME}: steps not as in the recipes"):
        add_frames(NAME, root=root, folder=tmp_path)
    root = collected(tmp_path / "mine", name="my-own")
    with pytest.raises(FoveaError, match="frames/my-own: stands in none of"):
        add_frames("my-own", root=root, folder=tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_frames_without_the_record_of_their_making_are_refused(tmp_path: Path) -> None:
    root = collected(tmp_path / "artifacts")
    record = root / ".runs" / f"collect-{NAME}.json"
    record.write_text(json.dumps({"digest": "of others"}))
    with pytest.raises(FoveaError, match=rf"collect-{NAME}\.json: tells nothing of the frames/"):
        add_frames(NAME, root=root, folder=tmp_path)


def test_what_is_committed_is_at_the_recipes_settings() -> None:
    for path in COLLECTED.glob("*.json"):
        recipe = home_of("frames", path.stem)
        assert recipe is not None
        kept = json.loads(path.read_text())
        assert not differences(kept["entry"], recipe.entry("frames", path.stem))
