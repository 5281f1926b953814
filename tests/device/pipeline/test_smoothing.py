"""Smoothing of class probabilities over time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekit.device.pipeline.smoothing import Smoother
from edgekit.preprocess import softmax
from tests.examples import examples


def rows(*first: float) -> np.ndarray:
    """Return rows of two classes; `first` is the probability of the first class in each row."""
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


@pytest.mark.parametrize(("below", "back"), [(0.5, 0.6), (0.9, 0.95)])
def test_an_uncertain_face_has_a_label_again_when_it_exceeds_the_threshold_clearly(below: float, back: float) -> None:
    smoother, shown, close = Smoother(1.0), [], []
    for index, value in enumerate([below + 0.02, below - 0.02, below + 0.02, back - 0.01, back + 0.01, below + 0.09]):
        largest = np.array([[value, 0.0, 0.0]], np.float32)
        smoother.smooth(largest, ids(1), index * 0.1)
        certainty = smoother.certainty(largest, ids(1), below)
        shown.append(bool(certainty.uncertain[0]))
        close.append(bool(certainty.is_close[0]))
    assert shown == [False, True, True, True, False, False]
    assert (close[3], close[5]) == (True, False)


@pytest.mark.parametrize(("below", "returns_s"), [(0.8, 0.7), (0.97, 1.4)])
def test_the_distance_to_the_threshold_delays_the_label_by_a_third_of_a_second(below: float, returns_s: float) -> None:
    smoother, times_s = Smoother(), []
    for frame in range(61):
        probabilities, _ = smoother.smooth(rows(1 if frame else 0.5), ids(1), frame / 30)
        certainty = smoother.certainty(probabilities, ids(1), below)
        times_s.append((frame / 30, probabilities.max() >= below, not certainty.uncertain[0]))
    exceeds_s = min(time_s for time_s, exceeds, _ in times_s if exceeds)
    label_s = min(time_s for time_s, _, has_label in times_s if has_label)
    assert label_s == pytest.approx(returns_s, abs=0.05)
    assert label_s - exceeds_s == pytest.approx(0.3, abs=0.05)


def test_an_uncertain_face_is_close_to_a_change_earlier_than_a_face_with_a_label() -> None:
    smoother, close = Smoother(1.0), []
    for index, value in enumerate([0.58, 0.55, 0.48, 0.502, 0.53]):
        largest = np.array([[value, 0.0, 0.0]], np.float32)
        smoother.smooth(largest, ids(1), index * 0.1)
        close.append(bool(smoother.certainty(largest, ids(1), 0.5).is_close[0]))
    # The limit of the first three frames is 0.5, and that of the last two is 0.6.
    assert close == [False, True, True, False, True]


def test_without_smoothing_only_the_threshold_counts() -> None:
    smoother = Smoother(0)
    for value, expected in ((0.52, False), (0.48, True), (0.52, False)):
        largest = np.array([[value, 0.0, 0.0]], np.float32)
        smoother.smooth(largest, ids(1), 0.0)
        assert smoother.certainty(largest, ids(1), 0.5).uncertain.tolist() == [expected]
        assert smoother.certainty(largest, None, 0.5).uncertain.tolist() == [expected]


def test_no_face_is_uncertain_without_a_threshold() -> None:
    smoother = Smoother(1.0)
    smoothed, _ = smoother.smooth(rows(0.5, 0.6), ids(1, 2), 0.0)
    certainty = smoother.certainty(smoothed, ids(1, 2), 0.0)
    assert (certainty.uncertain.tolist(), certainty.is_close.tolist()) == ([False, False], [False, False])


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


# Logits of one face over some frames, and the times between the frames.
SEQUENCES = st.tuples(st.integers(1, 30), st.integers(1, 8)).flatmap(
    lambda shape: st.tuples(
        arrays.arrays(np.float32, shape, elements=st.floats(-8, 8, width=16)),
        st.lists(st.floats(0, 3), min_size=shape[0], max_size=shape[0]),
    )
)


@settings(deadline=None, max_examples=examples(300))
@given(SEQUENCES, st.sampled_from([0.0, 0.05, 0.4, 5.0]))
def test_the_label_always_has_the_largest_of_probabilities_that_sum_to_one(
    sequence: tuple[np.ndarray, list[float]], seconds: float
) -> None:
    logits, steps_s = sequence
    smoother, previous = Smoother(seconds), None
    for row, time_s in zip(softmax(logits), np.cumsum(steps_s), strict=True):
        (shown,), (label,) = smoother.smooth(row[np.newaxis], ids(3), float(time_s))
        assert shown[label] == shown.max()
        assert shown.sum() == pytest.approx(1, abs=1e-5)
        if previous is not None and seconds and time_s - previous[1] <= 2:
            # The label changes only if the previous label has a smaller probability.
            assert label == previous[0] or shown[previous[0]] < shown[label]
        previous = label, float(time_s)


def test_a_label_that_is_behind_shares_the_probability_of_the_classes_above_it() -> None:
    smoother = Smoother(0.001)
    smoother.smooth(np.array([[0.1, 0.5, 0.4]], np.float32), ids(1), 0.0)
    (shown,), (label,) = smoother.smooth(np.array([[0.2, 0.38, 0.42]], np.float32), ids(1), 1.0)
    assert label == 1
    np.testing.assert_allclose(shown, [0.2, 0.4, 0.4], rtol=1e-6)
    # The averages continue from the values before sharing, and their difference is the lead of 0.1.
    (shown,), (label,) = smoother.smooth(np.array([[0.2, 0.34, 0.46]], np.float32), ids(1), 2.0)
    assert label == 2
    np.testing.assert_allclose(shown, [0.2, 0.34, 0.46], rtol=1e-6)


def skipped(values: list[float], every: int, cut_at: int = -1) -> list[float]:
    """Return the smoothed probability of each frame; every Nth frame is classified, with an output from `values`."""
    smoother, shown = Smoother(0.4), []
    for index in range(len(values)):
        smoothed, _ = smoother.smooth(
            rows(values[index - index % every]),
            ids(1),
            index * 0.04,
            np.array([index % every == 0]),
            np.array([index == cut_at]),
        )
        shown.append(float(smoothed[0, 0]))
    return shown


def test_a_steady_change_is_averaged_as_if_every_frame_were_classified() -> None:
    ramp = [0.9 - 0.02 * index for index in range(41)]
    shown = skipped(ramp, 5)
    np.testing.assert_allclose(shown[::5], skipped(ramp, 1)[::5], atol=1e-5)
    assert max(map(abs, np.subtract(shown, skipped(ramp, 1)))) > 0.005, "the frames between have the last output"


def test_a_cut_is_averaged_as_if_every_frame_were_classified() -> None:
    step = [0.9] * 10 + [0.1] * 11
    np.testing.assert_allclose(skipped(step, 5, cut_at=10), skipped(step, 1), atol=1e-5)
    assert skipped(step, 5)[10] < skipped(step, 1)[10] - 0.05, "without the cut the change is a transition"
