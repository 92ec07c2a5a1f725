"""Committed weights instead of hours of pretraining: `python -m pipeline.commands.pretrained NAME`.

`pipeline/recipes/weights/NAME` is a pretrained encoder: weights, curve, the manifest, and the
digests of the shards that it was trained on. If entry and shards are the same, this command makes
the complete artifact of it that the stage `pretrain` would publish. `dvc commit -f pretrain@NAME`
records it. `pipeline/recipes/weights/README.md` has the time that pretraining took.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from datasets.errors import FoveaError
from datasets.files import read_json, sha256_file
from datasets.sealed import MANIFEST, read_manifest
from pipeline.parts.encoders import keep, read_columns
from pipeline.runtime.artifact import Artifact
from pipeline.runtime.stage import Stage, main
from pretrain.frozen import CONFIG, WEIGHTS, load_encoder

COMMITTED_WEIGHTS = Path("pipeline/recipes/weights")
CURVE, SHARDS = "curve.csv", "shards.json"
FILES = (CONFIG, WEIGHTS, CURVE)


def run(stage: Stage) -> dict[str, Any]:
    """Make an encoder's artifact from committed weights."""
    folder = COMMITTED_WEIGHTS / stage.entry.name
    manifest = _manifest(folder)
    remedy = f"`dvc repro pretrain@{stage.entry.name}` pretrains it"
    if manifest["entry"] != stage.entry.resolved():
        raise FoveaError(
            f"{folder}: pretrained with {manifest['entry']}, but encoders.{stage.entry.name} is "
            f"{stage.entry.resolved()}; {remedy}"
        )
    for artifact in stage.inputs.values():
        if read_json(folder / SHARDS) != {artifact.label: shards(artifact)}:
            raise FoveaError(
                f"{folder}: trained on other shards than {artifact.folder}'s; {remedy}"
            )
    encoder = load_encoder(folder)
    shutil.copyfile(folder / CURVE, stage.out / CURVE)
    keep(stage, None, encoder, read_columns(stage, saliency=False)[0])
    command = f"dvc commit -f pretrain@{stage.entry.name}"
    print(f"run `{command}`, or DVC will pretrain it again", file=sys.stderr)
    return dict(manifest["metrics"])


def shards(artifact: Artifact) -> dict[str, str]:
    """Name -> SHA-256 of an artifact's shards."""
    return {name: sha for name, sha in artifact.files.items() if name.endswith(".tar")}


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the committed encoder. Raises FoveaError if its files do not match it."""
    path = folder / MANIFEST
    if not path.exists():
        names = sorted(other.parent.name for other in COMMITTED_WEIGHTS.glob(f"*/{MANIFEST}"))
        raise FoveaError(f"{path}: missing; there are weights of {', '.join(names)}")
    manifest = read_manifest(path)
    for name in FILES:
        if not (folder / name).exists() or sha256_file(folder / name) != manifest["files"][name]:
            raise FoveaError(f"{folder / name}: missing or damaged; `git checkout {folder}`")
    return manifest


if __name__ == "__main__":
    main("pretrained", "encoders", run)
