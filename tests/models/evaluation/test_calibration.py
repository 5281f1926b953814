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


def test_expected_error_is_near_zero_when_confidence_equals_accuracy() -> None:
    generator = np.random.default_rng(0)
    first = generator.uniform(0.5, 1, 20_000)
    truths = (generator.uniform(0, 1, 20_000) > first).astype(np.int64)
    assert calibration(np.stack([first, 1 - first], axis=1).astype(np.float32), truths).expected_error < 0.01


def test_certain_predictions_count_in_the_last_bin() -> None:
    result = calibration(np.eye(3, dtype=np.float32), np.array([0, 1, 1]))
    assert result.counts[-1] == 3
    assert result.expected_error == pytest.approx(1 / 3)


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
