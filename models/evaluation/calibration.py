"""Whether a classifier is as often right as it is sure: the numbers of a reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.preprocess import FloatArray

_BINS = 15


@dataclass(frozen=True)
class Calibration:
    """Answers sorted into bins of equal width by their confidence (the probability of the answer).

    `counts` int64 (bins,); `confidence` and `accuracy` float64 (bins,), 0..1, are a bin's means, NaN in an empty one.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def expected_error(self) -> float:
        """Expected calibration error, 0..1: the bins' |accuracy - confidence|, weighted by their counts.

        Source: Guo et al., ICML 2017 (arXiv 1706.04599), equation 5.
        """
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def calibration(probabilities: FloatArray, truths: NDArray[np.int64], bins: int = _BINS) -> Calibration:
    """Sort answers into bins.

    Args:
        probabilities: (N, classes), N ≥ 1, rows that sum to 1.
        truths: The true class of each, (N,).
        bins: How many of equal width lie between 0 and 1; a confidence on an edge belongs to the lower one.
    """
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == truths
    places = np.clip(np.ceil(confidence * np.float32(bins)).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Calibration(
            counts,
            np.bincount(places, confidence, bins) / counts,
            np.bincount(places, is_right, bins) / counts,
        )
