"""How near saliency comes to annotations: `python -m pipeline.commands.judge ANNOTATIONS
ARTIFACT...`

Scores built artifacts that can label (`predictors/reach-30`, `encoders/reach-mae`) on all maps of
an annotations entry, of frames whose annotations none of them learned from; where the clicks are
simulated, a second drawing of them is scored beside. What it finds lies in `artifacts/.runs/judge`,
with a picture of all maps side by side; `python -m pipeline.commands.results judge` takes scores
into the ledger.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.annotation.maps import heat_map
from datasets.errors import FoveaError
from datasets.files import write_atomic
from datasets.pictures import spread
from pipeline.config.tables import word_module
from pipeline.label import predicted
from pipeline.parts.labelled import Labelled, read_labelled
from pipeline.parts.scored import judged, scored
from pipeline.runtime.artifact import ROOT, lineage, open_artifact, versions
from pipeline.runtime.stage import machine, told_plainly
from pretrain import figures
from pretrain.frozen import load_saliency

PICTURED = 6  # frames


def redrawn(entry: Mapping[str, Any], env: str, labelled: Labelled) -> NDArray[np.float32] | None:
    """Maps (M, H, W) of the clicks of another such annotator, where that can be had at once: what
    those come to who know where to click, but not where chance has let the clicks fall.
    """
    annotator = word_module("datasets.annotation", entry["annotator"])
    if not hasattr(annotator, "again"):
        return None
    config = annotator.Config(**{own.name: entry[own.name] for own in fields(annotator.Config)})
    again = annotator.again(config, env, labelled.frames, labelled.indices.tolist())
    maps = [heat_map(clicks, *labelled.maps.shape[1:]) for clicks in again]
    found: NDArray[np.float32] = np.divide(maps, 255, dtype=np.float32)
    return found


def measured(annotations: str, label: str, root: Path = ROOT) -> dict[str, Any]:
    """An artifact's scores on an annotations entry, with what one has to know to read them.

    Raises FoveaError where it learned from annotations of the same frames.
    """
    truth, artifact = open_artifact(annotations, root), open_artifact(label, root)
    made_from = lineage(label, root)
    if any(key.startswith("annotations/") for key in made_from):
        shared = sorted(key for key in truth.manifest["inputs"] if key in made_from)
        if shared:
            raise FoveaError(
                f"{label}: learned from annotations of {shared[0]} itself; judge it on annotations "
                "of other frames"
            )
    labelled = read_labelled(truth)
    everything = np.arange(len(labelled.indices))
    judged_on = lineage(annotations, root)
    found = judged(load_saliency(artifact.folder), labelled, everything)
    entry = truth.manifest["entry"]
    again = redrawn(entry, judged_on[f"frames/{entry['frames']}"]["entry"]["env"], labelled)
    if again is not None:
        found |= scored(again, labelled.maps, "redrawn_")
    return {
        "source": label,
        "annotations": annotations,
        "frames": len(everything),
        "scores": found,
        "held_out": artifact.manifest["metrics"],
        "made_from": made_from,
        "judged_on": judged_on,
        "versions": versions(),
        "machine": machine(),
    }


def picture(annotations: str, labels: Sequence[str], root: Path = ROOT) -> Image.Image:
    """Annotated frames, a row each: the frame, its annotation, the artifacts' maps."""
    labelled = read_labelled(open_artifact(annotations, root))
    shown = labelled.columns(spread(len(labelled.indices), PICTURED))
    columns: dict[str, NDArray[Any]] = {"annotation": shown["saliency"] / 255.0}
    for label in labels:
        source = load_saliency(open_artifact(label, root).folder)
        columns[label.removeprefix("predictors/")] = predicted(source, shown["image"])
    rows = [
        {"frame": image, **{name: figures.heat_map(maps[row]) for name, maps in columns.items()}}
        for row, image in enumerate(shown["image"])
    ]
    return figures.grid(rows, columns=len(rows[0]))


def _told(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.commands.judge", description=__doc__)
    parser.add_argument("annotations", help="such as annotations/reach-further")
    parser.add_argument("artifacts", nargs="+", help="such as predictors/reach-30")
    arguments = parser.parse_args()
    folder = ROOT / ".runs" / "judge"
    folder.mkdir(parents=True, exist_ok=True)
    judges = arguments.annotations.partition("/")[2]
    with told_plainly():
        for label in arguments.artifacts:
            found = measured(arguments.annotations, label)
            path = folder / f"{label.replace('/', '-')}-on-{judges}.json"
            write_atomic(path, (json.dumps(found, indent=1) + "\n").encode())
            print(f"{path}: {_told(found['scores'])}", file=sys.stderr)
        path = folder / f"{judges}.png"
        picture(arguments.annotations, arguments.artifacts).save(path)
        print(f"{path}: their maps side by side", file=sys.stderr)


if __name__ == "__main__":
    main()
