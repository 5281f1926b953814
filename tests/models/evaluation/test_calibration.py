"""Calibration compares confidence and accuracy in each bin."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.models.evaluation.evaluate import calibration


def test_bins_hold_means_of_confidence_and_accuracy() -> None:
    probabilities = np.array([[0.95, 0.05], [0.97, 0.03], [0.4, 0.6], [0.45, 0.55]], np.float32)
    result = calibration(probabilities, np.array([0, 1, 1, 1]), bins=10)
    assert result.counts.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 2]  # 0.6 is on an edge: the lower bin
    assert result.accuracy[[5, 9]].tolist() == [1.0, 0.5]
    assert result.confidence[[5, 9]] == pytest.approx([0.575, 0.96])
    assert result.expected_error == pytest.approx((0.425 + 0.46) / 2)
    assert np.isnan(result.accuracy[0])


def test_expected_error_agrees_with_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    generator = np.random.default_rng(1)
    probabilities = generator.dirichlet(np.ones(7) * 0.3, 500).astype(np.float32)
    truths = generator.integers(0, 7, 500)
    expected = functional.multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(truths), num_classes=7, n_bins=15
    )
    assert calibration(probabilities, truths).expected_error == pytest.approx(expected.item(), abs=1e-5)
