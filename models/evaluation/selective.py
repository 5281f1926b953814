"""Selective classification: accuracy of the confident predictions, as a risk-coverage curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.models.evaluation.evaluate import Evaluation
from edgekit.preprocess import softmax


@dataclass(frozen=True)
class Coverage:
    """The predictions with a confidence of at least `threshold`: their number and how many are correct.

    `coverage` is their share of all predictions, 0..1. Less confident predictions are labelled `uncertain`.
    """

    threshold: float
    coverage: float
    answered: int
    correct: int

    @property
    def accuracy(self) -> float | None:
        """Fraction of the confident predictions that are correct, 0..1; None if there are none. The risk is 1 - it."""
        return self.correct / self.answered if self.answered else None


def risk_coverage(evaluation: Evaluation, thresholds: Sequence[float]) -> list[Coverage]:
    """Return coverage and accuracy at thresholds of confidence, the probability of the predicted class.

    Source: Geifman, El-Yaniv, NeurIPS 2017 (arXiv 1705.08500).
    """
    probabilities = softmax(evaluation.logits)
    confidence = probabilities.max(axis=1)
    is_correct = probabilities.argmax(axis=1) == evaluation.truths
    points = []
    for threshold in thresholds:
        answered = confidence >= threshold
        count = int(answered.sum())
        points.append(Coverage(threshold, count / evaluation.total, count, int(is_correct[answered].sum())))
    return points
