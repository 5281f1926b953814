"""Accuracy and coverage of a classifier by threshold of its confidence, for choosing `Contract.uncertain_below`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.preprocess import FloatArray

# 0, 0.05, ..., 0.95
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(20))


@dataclass(frozen=True)
class RiskCoverage:
    """Share and accuracy of the accepted images by threshold, as float64 arrays (thresholds,), 0..1.

    An image is accepted if the probability of its predicted class is at least the threshold; the runtime gives the
    others the label "uncertain". `coverage` is the share of accepted images, `accuracy` the share of correct ones among
    them (NaN if there are none); `1 - accuracy` is the risk. Source: El-Yaniv and Wiener, JMLR 11, 2010.
    """

    thresholds: NDArray[np.float64]
    coverage: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    def as_document(self) -> list[dict[str, float | None]]:
        """Return the points ready for JSON; a threshold at which no image is accepted has no accuracy."""
        points = zip(self.thresholds.tolist(), self.coverage.tolist(), self.accuracy.tolist(), strict=True)
        return [
            {"threshold": threshold, "coverage": coverage, "accuracy": accuracy if coverage else None}
            for threshold, coverage, accuracy in points
        ]


def risk_coverage(
    probabilities: FloatArray, truths: NDArray[np.int64], thresholds: Sequence[float] = THRESHOLDS
) -> RiskCoverage:
    """Return, for each threshold, the coverage and the accuracy of the images that reach the threshold.

    Example:
        result = edgekit.evaluate("default", "faces", split="test")
        curve = edgekit.risk_coverage(softmax(result.logits), result.truths, [0.3, 0.35, 0.4])

    Args:
        probabilities: (N, classes), N ≥ 1; each row sums to 1.
        truths: The true classes, (N,).
        thresholds: Smallest probabilities of the predicted class, 0..1.
    """
    is_correct = probabilities.argmax(axis=1) == truths
    # Thresholds have the type of the probabilities, as in the runtime.
    least = np.asarray(thresholds, probabilities.dtype)
    is_accepted = probabilities.max(axis=1) >= least[:, np.newaxis]  # (thresholds, N)
    accepted = is_accepted.sum(axis=1)
    with np.errstate(invalid="ignore"):
        accuracy = (is_accepted & is_correct).sum(axis=1) / accepted
    return RiskCoverage(np.asarray(thresholds, np.float64), accepted / len(truths), accuracy)
