"""How near saliency comes to annotations: `python -m pipeline.judge ANNOTATIONS ARTIFACT...`

Scores built artifacts that can label (`predictors/reach-30`, `encoders/reach-mae`) on all maps of
an annotations entry, of frames that none of them learned from. What it finds lies in
`artifacts/.runs/judge/`; `python -m pipeline.results judge` takes it into the ledger.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.errors import FoveaError
from datasets.files import write_atomic
from datasets.saliency import Indices
from pipeline.artifact import ROOT, lineage, open_artifact, versions
from pipeline.label import predicted
from pipeline.labelled import Labelled, read_labelled
from pipeline.stage import machine, told_plainly
from pretrain.encoder import SaliencySource
from pretrain.saliency_metrics import scores
from pretrain.saliency_source import bump, load_saliency

CENTRE = 0.25  # of each side, as the predictor `centre`


def judged(source: SaliencySource, labelled: Labelled, judges: Indices) -> dict[str, float]:
    """F and error on the maps numbered `judges`; those of nothing anywhere, and of a bump in the
    middle, beside them. No F where no map has a salient pixel.
    """
    truth = labelled.maps[judges]
    height, width = truth.shape[1:]
    middle = bump(height, width, CENTRE).numpy()
    found: dict[str, NDArray[np.float32]] = {
        "": predicted(source, labelled.columns(judges)["image"]),
        "zero_": np.zeros(truth.shape, np.float32),
        "centre_": np.broadcast_to(middle, truth.shape),
    }
    return {
        f"{name}{score}": value
        for name, maps in found.items()
        for score, value in asdict(scores(maps, truth)).items()
        if value is not None
    }


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
    return {
        "source": label,
        "annotations": annotations,
        "frames": len(everything),
        "scores": judged(load_saliency(artifact.folder), labelled, everything),
        "held_out": artifact.manifest["metrics"],
        "made_from": made_from,
        "judged_on": lineage(annotations, root),
        "versions": versions(),
        "machine": machine(),
    }


def _told(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.judge", description=__doc__)
    parser.add_argument("annotations", help="such as annotations/reach-further")
    parser.add_argument("artifacts", nargs="+", help="such as predictors/reach-30")
    arguments = parser.parse_args()
    folder = ROOT / ".runs" / "judge"
    folder.mkdir(parents=True, exist_ok=True)
    with told_plainly():
        for label in arguments.artifacts:
            found = measured(arguments.annotations, label)
            judges = arguments.annotations.partition("/")[2]
            path = folder / f"{label.replace('/', '-')}-on-{judges}.json"
            write_atomic(path, (json.dumps(found, indent=1) + "\n").encode())
            print(f"{path}: {_told(found['scores'])}", file=sys.stderr)


if __name__ == "__main__":
    main()
