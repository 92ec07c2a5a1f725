"""Saliency against where people looked: seven metrics, each of one frame.

Nikulin, Ianina, Aliev and Nikolenko (2019), "Free-Lunch Saliency via Attention in Atari Agents",
section 4.3 and Table 4, report NSS, KL divergence and shuffled AUC on Atari-HEAD's gaze. Bylinskii
et al. (2019), "What do different evaluation metrics tell us about saliency models?", define these
and the others. A fixation map (H, W) has the number of fixations, or of gaze samples, at each
pixel. Metrics are of the resolution that gaze is measured in: 210x160 on Atari (`resize`).

A metric that is not defined for a frame is NaN, never 0: no fixations; NaN or infinite saliency;
negative saliency, for the metrics of distributions; a constant or all-zero map, except where a
docstring says otherwise. `averages` counts such frames.

Differs from the paper's released code. Shuffled AUC is the exact mean over its random splits. Its
negatives are all other frames that it is given, not ten sampled ones.

Numbers to expect: NSS 0.5 to 1.6, KL 3.2 to 3.5 and shuffled AUC 0.45 to 0.66 for Sparse FLS
(Table 4); NSS 4.8 to 6.5, KL 1.1 to 1.3, CC 0.56 to 0.59 and AUC 0.97 for a network trained on the
gaze itself (Zhang et al. 2019, "Atari-HEAD", supplement).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

SIZE = (210, 160)  # rows and columns of an Atari screen
SIGMA = 5.0  # pixels of SIZE; of the Gaussian that makes a density of fixations
TRUNCATE = 4.0  # the Gaussian ends at this many sigmas
CONSTANT = 1e-6  # a smaller range, as a share of the largest value, is rounding

Map = NDArray[np.floating[Any]]  # (H, W)
Fixations = NDArray[np.integer[Any]]  # (H, W) numbers of fixations
Values = NDArray[np.float64]


def fixation_map(points: NDArray[np.float64], height: int, width: int) -> NDArray[np.int64]:
    """(height, width): how many of `points` (n, 2) lie in each pixel.

    A point is x to the right and y down, in pixels from the upper left corner. Points that are
    outside or NaN are dropped.
    """
    inside = np.all((points >= 0) & (points < (width, height)), axis=1)
    x, y = points[inside].astype(np.int64).T
    return np.bincount(y * width + x, minlength=height * width).reshape(height, width)


def resize(maps: NDArray[np.floating[Any]], height: int, width: int) -> Values:
    """Maps (N, H, W) -> (N, height, width): bilinear between pixel centres, mirrored at the border,
    as the paper's released code resizes (scikit-image's `resize`).
    """
    rows, columns = (_weights(*pair) for pair in zip(maps.shape[1:], (height, width), strict=True))
    resized: Values = rows @ maps @ columns.T
    return resized


def nss(saliency: Map, fixations: Fixations) -> float:
    """Normalized scanpath saliency: the mean over fixations of the map's z-score (Peters et al.
    2005; equation 1 of the paper). The standard deviation is that of the population.
    """
    if not (_varies(saliency) and fixations.any()):
        return np.nan
    value = saliency.astype(np.float64)
    return float(_mean_at((value - value.mean()) / value.std(), fixations))


def density(fixations: Fixations, sigma: float = SIGMA) -> Values:
    """Fixations (H, W) blurred by a Gaussian of `sigma` pixels, mirrored at the border.

    Equal to OpenCV's GaussianBlur of float64 with its border `reflect_101`.
    """
    blurred: Values = gaussian_filter(
        fixations.astype(np.float64), sigma, mode="mirror", truncate=TRUNCATE
    )
    return blurred


def kl_divergence(saliency: Map, target: Values) -> float:
    """Kullback-Leibler divergence, in nats, of the map from the density of fixations `target`, both
    with sum 1 (equation 2 of the paper). A constant map is the uniform distribution. Where the
    density is positive and the map is 0 the divergence is infinite, which counts as undefined.
    """
    truth, predicted = _distribution(target), _distribution(saliency)
    if truth is None or predicted is None:
        return np.nan
    there = truth > 0
    if not (predicted[there] > 0).all():
        return np.nan
    return float((truth[there] * np.log(truth[there] / predicted[there])).sum())


def shuffled_auc(saliency: Map, fixations: Fixations, others: Fixations) -> float:
    """The probability that a fixation has a higher value than a fixation of another frame; equal
    values count half (Borji, Sihite and Itti 2012). `others` is the sum of those frames' maps.

    Exact: the ROC area is linear in the negatives, so its mean over random samples of them is the
    area with each pixel weighted by its number of fixations.
    """
    if not (_varies(saliency) and fixations.any() and others.any()):
        return np.nan
    fixated, elsewhere = fixations > 0, others > 0
    return auc(saliency[fixated], fixations[fixated], saliency[elsewhere], others[elsewhere])


def auc(positive: Map, times: Fixations, negative: Map, negative_times: Fixations) -> float:
    """The area under the ROC of values that occur so many `times`, in O(n log n); ties count half.

    NaN without positives or negatives.
    """
    order = negative.argsort()
    values = negative[order]
    cumulative = np.concatenate([[0], negative_times[order].cumsum()])
    pairs = int(times.sum()) * int(cumulative[-1])
    if not pairs:
        return np.nan
    below, up_to = (cumulative[values.searchsorted(positive, side)] for side in ("left", "right"))
    return float((times * (below + up_to)).sum() / (2 * pairs))


def auc_judd(saliency: Map, fixations: Fixations) -> float:
    """The area under the ROC of fixated pixels against all others, each counted once, with a
    threshold at each fixated pixel's value and straight lines between (Judd et al. 2009; Riche et
    al. 2013). Equal values are one threshold; the benchmark's own code adds noise to them instead.
    """
    fixated = fixations > 0
    if not _varies(saliency) or not fixated.any() or fixated.all():
        return np.nan
    thresholds = np.unique(saliency[fixated])[::-1]
    rates = [
        np.concatenate([[0], _share_from(saliency[pixels], thresholds), [1]])
        for pixels in (fixated, ~fixated)
    ]
    return float(np.trapezoid(rates[0], rates[1]))


def correlation(saliency: Map, target: Values) -> float:
    """CC: Pearson's correlation of the map and the density of fixations `target` (Le Meur et al.
    2007).
    """
    if not (_varies(saliency) and _varies(target)):
        return np.nan
    return float(np.corrcoef(saliency.ravel().astype(np.float64), target.ravel())[0, 1])


def similarity(saliency: Map, target: Values) -> float:
    """SIM: the sum over pixels of the smaller of the map and the density of fixations `target`,
    both with sum 1 (Judd, Durand and Torralba 2012). A constant map is the uniform distribution.
    """
    truth, predicted = _distribution(target), _distribution(saliency)
    if truth is None or predicted is None:
        return np.nan
    return float(np.minimum(truth, predicted).sum())


def information_gain(saliency: Map, fixations: Fixations, baseline: Map) -> float:
    """Bits a fixation by which the map predicts better than `baseline`, both with sum 1 (Kümmerer,
    Wallis and Bethge 2015). Undefined where either is 0 at a fixation; a constant map is the
    uniform distribution.
    """
    predicted, prior = _distribution(saliency), _distribution(baseline)
    if predicted is None or prior is None or not fixations.any():
        return np.nan
    fixated = fixations > 0
    if not ((predicted[fixated] > 0).all() and (prior[fixated] > 0).all()):
        return np.nan
    gain = np.log2(predicted[fixated] / prior[fixated])
    return float((fixations[fixated] * gain).sum() / fixations.sum())


def frame_scores(
    saliency: Map, fixations: Fixations, others: Fixations, baseline: Map
) -> dict[str, float]:
    """All metrics of one frame, by name."""
    target = density(fixations)
    return {
        "nss": nss(saliency, fixations),
        "kl": kl_divergence(saliency, target),
        "shuffled_auc": shuffled_auc(saliency, fixations, others),
        "auc_judd": auc_judd(saliency, fixations),
        "cc": correlation(saliency, target),
        "sim": similarity(saliency, target),
        "information_gain": information_gain(saliency, fixations, baseline),
    }


@dataclass(frozen=True)
class Average:
    """A metric's mean over the frames for which it is defined."""

    mean: float  # NaN if it is defined for none
    defined: int
    frames: int

    @property
    def coverage(self) -> float:
        """The share of the frames for which it is defined."""
        return self.defined / self.frames


def averages(frames: Sequence[Mapping[str, float]]) -> dict[str, Average]:
    """Each metric's average over frames; those where it is NaN are left out and counted.

    Raises ValueError without frames.
    """
    if not frames:
        raise ValueError("no frames to average over")
    result = {}
    for name in frames[0]:
        values = np.array([frame[name] for frame in frames])
        defined = values[~np.isnan(values)]
        mean = float(defined.mean()) if len(defined) else np.nan
        result[name] = Average(mean, len(defined), len(values))
    return result


def _distribution(values: Map) -> Values | None:
    """The map with sum 1; None where it is all-zero, negative, NaN or infinite somewhere."""
    total = values.sum(dtype=np.float64)
    if not (np.isfinite(total) and total > 0 and values.min() >= 0):
        return None
    return np.asarray(values / total, np.float64)


def _varies(values: Map) -> bool:
    """Whether a map is finite and not constant, apart from rounding."""
    low, high = float(values.min()), float(values.max())
    return bool(np.isfinite([low, high]).all()) and high - low > CONSTANT * max(-low, high)


def _mean_at(values: Values, fixations: Fixations) -> float:
    return float((values * fixations).sum() / fixations.sum())


def _share_from(values: Map, thresholds: Map) -> Values:
    """The share of `values` at or above each threshold."""
    below = np.sort(values).searchsorted(thresholds, "left")
    share: Values = 1 - below / len(values)
    return share


def _weights(before: int, after: int) -> Values:
    """(after, before): the part of each old pixel in each new one."""
    centre = (np.arange(after) + 0.5) * before / after - 0.5
    left = np.floor(centre).astype(np.int64)
    weights = np.zeros((after, before))
    for pixel, part in ((left, left + 1 - centre), (left + 1, centre - left)):
        mirrored = np.abs(pixel)
        mirrored = np.minimum(mirrored, np.maximum(2 * (before - 1) - mirrored, 0))
        np.add.at(weights, (np.arange(after), mirrored), part)
    return weights
