"""Coverage and accuracy of the images whose confidence reaches a threshold."""

from __future__ import annotations

import numpy as np

from edgekit.models.evaluation.risk_coverage import THRESHOLDS, risk_coverage

PROBABILITIES = np.array([[0.95, 0.05], [0.3, 0.7], [0.6, 0.4], [0.45, 0.55]], np.float32)
TRUTHS = np.array([0, 1, 1, 1])


def test_each_threshold_has_the_share_that_is_answered_and_right() -> None:
    curve = risk_coverage(PROBABILITIES, TRUTHS, (0.0, 0.6, 0.65, 0.8, 1.0))
    assert curve.coverage.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]  # 0.6 itself is included, as in the runtime
    assert curve.accuracy[:4].tolist() == [0.75, 2 / 3, 1.0, 1.0]
    assert np.isnan(curve.accuracy[4])


def test_without_a_threshold_it_is_the_accuracy_and_coverage_falls() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(7), 500).astype(np.float32)
    truths = generator.integers(0, 7, 500)
    curve = risk_coverage(probabilities, truths)
    assert curve.thresholds.tolist() == list(THRESHOLDS)
    assert curve.accuracy[0] == (probabilities.argmax(axis=1) == truths).mean()
    assert (np.diff(curve.coverage) <= 0).all()
    for threshold, coverage in zip(curve.thresholds, curve.coverage, strict=True):
        # The condition of the runtime for an uncertain result.
        assert coverage == (~(probabilities.max(axis=1) < np.float32(threshold))).mean()
