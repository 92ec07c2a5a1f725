"""How near saliency comes to annotations: `python -m pipeline.commands.judge ANNOTATIONS
ARTIFACT...`

Scores built artifacts that can label (`predictors/reach-30`, `encoders/reach-mae`) on all maps of
an annotations entry, of frames whose annotations none of them learned from; where the clicks are
simulated, a second simulated annotator is scored beside them. Writes drafts of records to
`artifacts/.runs/measured`, which `python -m pipeline.commands.results add ARTIFACT --on
ANNOTATIONS` completes, and a picture of all maps side by side.
"""

from __future__ import annotations

import argparse
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
from datasets.pictures import spread
from pipeline.config.tables import component
from pipeline.parts.labelled import Labelled, read_labelled
from pipeline.parts.maps import predict
from pipeline.parts.scored import judged, scored
from pipeline.results.add import DRAFTS, write_draft
from pipeline.runtime.artifact import ROOT, lineage, open_artifact, versions
from pipeline.runtime.stage import told_plainly
from pretrain import figures
from pretrain.frozen import load_saliency

PICTURED = 6  # frames


def second_annotator(
    entry: Mapping[str, Any], env: str, labelled: Labelled
) -> NDArray[np.float32] | None:
    """Maps (M, H, W) of a second simulated annotator, whose scores are the inter-annotator
    agreement; None where nobody can be simulated.
    """
    annotator = component("datasets.annotation", entry["annotator"])
    config = annotator.Config(**{own.name: entry[own.name] for own in fields(annotator.Config)})
    again = annotator.again(config, env, labelled.frames, labelled.indices.tolist())
    if again is None:
        return None
    maps = [heat_map(clicks, *labelled.maps.shape[1:]) for clicks in again]
    shares: NDArray[np.float32] = np.divide(maps, 255, dtype=np.float32)
    return shares


def measured(annotations: str, label: str, root: Path = ROOT) -> dict[str, Any]:
    """An artifact's scores on an annotations entry: the fields of a record.

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
    measured_on = lineage(annotations, root)
    scores = judged(load_saliency(artifact.folder), labelled, everything)
    entry = truth.manifest["entry"]
    env = measured_on[f"frames/{entry['frames']}"]["entry"]["env"]
    second = second_annotator(entry, env, labelled)
    if second is not None:
        scores |= scored(second, labelled.maps, "second_")
    return {
        "artifact": label,
        "on": annotations,
        "made_from": made_from,
        "measured_on": measured_on,
        "versions": versions(),
        "scores": {
            "frames": len(everything),
            "judged": scores,
            "own": artifact.manifest["metrics"],
        },
    }


def picture(annotations: str, labels: Sequence[str], root: Path = ROOT) -> Image.Image:
    """Annotated frames, a row each: the frame, its annotation, the artifacts' maps."""
    labelled = read_labelled(open_artifact(annotations, root))
    shown = labelled.columns(spread(len(labelled.indices), PICTURED))
    columns: dict[str, NDArray[Any]] = {"annotation": shown["saliency"] / 255.0}
    for label in labels:
        source = load_saliency(open_artifact(label, root).folder)
        columns[label.removeprefix("predictors/")] = predict(source, shown["image"])
    rows = [
        {"frame": image, **{name: figures.heat_map(maps[row]) for name, maps in columns.items()}}
        for row, image in enumerate(shown["image"])
    ]
    return figures.grid(rows, columns=len(rows[0]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.commands.judge", description=__doc__)
    parser.add_argument("annotations", help="such as annotations/reach-further")
    parser.add_argument("artifacts", nargs="+", help="such as predictors/reach-30")
    arguments = parser.parse_args()
    with told_plainly():
        for label in arguments.artifacts:
            fields = measured(arguments.annotations, label)
            path = write_draft(ROOT, **fields)
            scores = fields["scores"]["judged"].items()
            line = ", ".join(f"{name} {value:.4f}" for name, value in scores)
            print(f"{path}: {line}", file=sys.stderr)
        path = ROOT / DRAFTS / f"{arguments.annotations}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(arguments.annotations, arguments.artifacts).save(path)
        print(f"{path}: their maps side by side", file=sys.stderr)


if __name__ == "__main__":
    main()
