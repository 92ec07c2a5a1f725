"""Frames whose making says something, as how well the learner did whose replay they are: one JSON
file a set of frames in `pipeline/recipes/measured/frames/`, which lines of the ledger quote.
"""

from __future__ import annotations

from pathlib import Path

from datasets.errors import FoveaError
from pipeline.results.measured import MEASURED, record_of, write_kept
from pipeline.results.settings import checked_recipes, differences, home_of
from pipeline.runtime import artifact

COLLECTED = MEASURED / "frames"


def add_frames(
    name: str, note: str = "", *, root: Path = artifact.ROOT, folder: Path = COLLECTED
) -> Path:
    """Keep what the manifest of frames tells, and its run; returns the file.

    Raises FoveaError where they or the record are not there, or differ from the recipe's.
    """
    made = artifact.open_artifact(f"frames/{name}", root)
    run = record_of(root, f"collect-{name}", made.digest)
    if run is None:
        raise FoveaError(
            f"{root}/.runs/collect-{name}.json: tells nothing of the {made.label} that are there "
            f"now; `dvc repro -f collect@{name}` collects them again"
        )
    recipe = home_of("frames", name)
    if recipe is None:
        raise FoveaError(f"{made.label}: stands in none of {', '.join(checked_recipes())}")
    entry = made.manifest["entry"]
    if changed := differences(entry, recipe.entry("frames", name)):
        raise FoveaError(
            f"{made.label}: {', '.join(changed)} not as in the recipes; only runs at a recipe's "
            "own settings are kept"
        )
    path = folder / f"{name}.json"
    told = {key: made.manifest[key] for key in ("metrics", "versions")}
    write_kept(
        path,
        {"frames": name, "digest": made.digest, "note": note, "entry": entry, **told, "run": run},
    )
    return path
