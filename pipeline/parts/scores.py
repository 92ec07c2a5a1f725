"""Scores of saliency, beside those of trivial predictors, with which they must be compared."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from datasets.saliency import Indices
from pipeline.parts.labelled import Labelled
from pipeline.parts.maps import predict
from pretrain.encoder import SaliencySource
from pretrain.metrics.saliency import scores
from pretrain.modules.maps import centre_prior

CENTRE = 0.25  # sigma as a share of each side, as of the predictor `centre`


def scores_of(source: SaliencySource, labelled: Labelled, rows: Indices) -> dict[str, float]:
    """F and error on the maps number `rows`, and those of the all-zero map and the centre prior.
    There is no F if no map has a salient pixel.
    """
    truth = labelled.maps[rows]
    height, width = truth.shape[1:]
    prior = centre_prior(height, width, CENTRE).numpy()
    return (
        scores_of_maps(predict(source, labelled.columns(rows)["image"]), truth)
        | scores_of_maps(np.zeros(truth.shape, np.float32), truth, "zero_")
        | scores_of_maps(np.broadcast_to(prior, truth.shape), truth, "centre_")
    )


def scores_of_maps(
    maps: NDArray[np.float32], truth: NDArray[np.uint8], of: str = ""
) -> dict[str, float]:
    """Scores of maps (N, H, W) by name, with the prefix `of`; without scores that are None."""
    values = asdict(scores(maps, truth)).items()
    return {f"{of}{name}": value for name, value in values if value is not None}
