"""Probabilities over time."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.device.pipeline.smoothing import Smoother


def rows(*first: float) -> np.ndarray:
    """Rows of two classes, the first with these probabilities."""
    return np.array([[value, 1 - value] for value in first], np.float32)


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_a_step_is_followed_with_the_time_constant_at_any_frame_rate() -> None:
    for step_s in (0.01, 0.1, 0.4):
        smoother = Smoother(0.4)
        smoother.smooth(rows(1), ids(1), 0.0)
        for index in range(1, round(0.4 / step_s) + 1):
            smoothed, _ = smoother.smooth(rows(0), ids(1), index * step_s)
        assert smoothed[0, 0] == pytest.approx(np.exp(-1), abs=1e-5)
        assert smoothed[0].sum() == pytest.approx(1)


def test_a_label_changes_only_when_another_leads_clearly() -> None:
    smoother = Smoother(0.1)
    labels = []
    for index, value in enumerate([0.9, 0.48, 0.52, 0.47, 0.53, 0.1, 0.1, 0.1]):
        _, (label,) = smoother.smooth(rows(value), ids(7), index * 1.0)
        labels.append(label)
    assert labels == [0, 0, 0, 0, 0, 1, 1, 1], "0.48 against 0.52 is no lead"


def test_faces_are_smoothed_by_their_ids() -> None:
    smoother = Smoother(1.0)
    smoother.smooth(rows(1, 0), ids(1, 2), 0.0)
    smoothed, labels = smoother.smooth(rows(0.2, 0.9), ids(2, 1), 0.1)
    assert smoothed[0, 0] < 0.1 < 0.9 < smoothed[1, 0]
    assert labels.tolist() == [1, 0]


def test_without_ids_nothing_is_smoothed() -> None:
    smoother = Smoother(1.0)
    smoother.smooth(rows(1), None, 0.0)
    smoothed, labels = smoother.smooth(rows(0.3), None, 0.1)
    assert (smoothed.tolist(), labels.tolist()) == (rows(0.3).tolist(), [1])


def test_a_face_that_was_away_starts_anew_and_memory_stays_bounded() -> None:
    smoother = Smoother(10.0)
    smoother.smooth(rows(1), ids(1), 0.0)
    for index in range(1000):
        smoother.smooth(rows(0.5), ids(index + 2), index * 0.1)
    assert len(smoother._states) <= 21
    smoothed, _ = smoother.smooth(rows(0), ids(1), 100.0)
    assert smoothed[0, 0] == 0


def test_no_seconds_change_nothing() -> None:
    smoother = Smoother(0)
    smoother.smooth(rows(1), ids(1), 0.0)
    smoothed, labels = smoother.smooth(rows(0.3), ids(1), 0.01)
    assert (smoothed.tolist(), labels.tolist()) == (rows(0.3).tolist(), [1])


def test_no_faces_are_no_faces() -> None:
    smoothed, labels = Smoother().smooth(np.zeros((0, 2), np.float32), ids(), 0.0)
    assert (smoothed.shape, labels.tolist()) == ((0, 2), [])
