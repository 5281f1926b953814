"""Calibration of a classifier: confidence compared with accuracy, as in a reliability diagram."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.preprocess import FloatArray

_BINS = 15
# Limits of a fitted temperature; beyond them, a factor has no effect on the probabilities.
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.05, 20.0
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Calibration:
    """Predictions sorted into bins of equal width by confidence, the probability of the predicted class.

    `counts` int64 (bins,) are the predictions per bin; `confidence` and `accuracy` float64 (bins,) are the means of
    each bin, 0..1, NaN for an empty bin.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def expected_error(self) -> float:
        """Expected calibration error, 0..1: mean of |accuracy - confidence| over the bins, weighted by their counts.

        Source: Guo et al., ICML 2017 (arXiv 1706.04599), equation 3.
        """
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def calibration(probabilities: FloatArray, truths: NDArray[np.int64], bins: int = _BINS) -> Calibration:
    """Return the calibration of predictions: counts, mean confidence and accuracy per bin.

    Args:
        probabilities: (N, classes), N ≥ 1; each row sums to 1.
        truths: The true classes, (N,).
        bins: Number of bins between 0 and 1; a confidence on an edge counts in the lower bin.
    """
    confidence = probabilities.max(axis=1)
    is_correct = probabilities.argmax(axis=1) == truths
    bin_of = np.clip(np.ceil(confidence * np.float32(bins)).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Calibration(
            counts,
            np.bincount(bin_of, confidence, bins) / counts,
            np.bincount(bin_of, is_correct, bins) / counts,
        )


def fit_temperature(logits: FloatArray, truths: NDArray[np.int64]) -> float:
    """Return the temperature, 0.05 to 20, at which the mean cross-entropy of `logits / temperature` is lowest.

    The cross-entropy has one minimum over the inverse temperature, because it is convex in it; a golden-section search
    finds it. Source: Guo et al., ICML 2017 (arXiv 1706.04599), section 4.2.

    Args:
        logits: (N, classes), N ≥ 1.
        truths: The true classes, (N,).
    """
    gaps = logits.astype(np.float64)
    gaps -= gaps[np.arange(len(truths)), truths][:, np.newaxis]  # logit minus that of the true class

    def loss(inverse: float) -> float:
        return float(np.logaddexp.reduce(gaps * inverse, axis=1).mean())

    low, high = 1 / _MAX_TEMPERATURE, 1 / _MIN_TEMPERATURE
    while high - low > 1e-4 * low:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return 2 / (low + high)
