"""Smoothing of class probabilities over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekit.device.detections import Classification
from edgekit.device.pipeline.smoothing import smooth
from edgekit.preprocess import softmax
from tests.examples import examples


class Face:
    """Smooths the outputs for one face of two classes, given as the probability of the first class."""

    def __init__(self, smooth_s: float = 0.4) -> None:
        self.smooth_s = smooth_s
        self.state: Classification | None = None

    def next(self, output: float | Sequence[float], time_s: float, is_new=True, is_cut=False) -> Classification:
        row = np.array([output, 1 - output] if isinstance(output, float | int) else output, np.float32)
        self.state = smooth(self.state, row, time_s, self.smooth_s, is_new=is_new, is_cut=is_cut)
        return self.state


def test_a_step_is_followed_with_the_time_constant_at_any_frame_rate() -> None:
    for step_s in (0.01, 0.1, 0.4):
        face = Face(0.4)
        face.next(1, 0.0)
        for index in range(1, round(0.4 / step_s) + 1):
            shown = face.next(0, index * step_s).shown
        assert shown[0] == pytest.approx(np.exp(-1), abs=1e-5)
        assert shown.sum() == pytest.approx(1)


def test_a_label_changes_only_when_another_leads_clearly() -> None:
    face = Face(0.1)
    values = [0.9, 0.48, 0.52, 0.47, 0.53, 0.1, 0.1, 0.1]
    labels = [face.next(value, index * 1.0).label for index, value in enumerate(values)]
    assert labels == [0, 0, 0, 0, 0, 1, 1, 1], "0.48 against 0.52 is no lead"


# Logits of one face over some frames, and the times between the frames.
SEQUENCES = st.tuples(st.integers(1, 30), st.integers(1, 8)).flatmap(
    lambda shape: st.tuples(
        arrays.arrays(np.float32, shape, elements=st.floats(-8, 8, width=16)),
        st.lists(st.floats(0, 3), min_size=shape[0], max_size=shape[0]),
    )
)


@settings(max_examples=examples(300))
@given(SEQUENCES, st.sampled_from([0.05, 0.4, 5.0]))
def test_the_label_always_has_the_largest_of_probabilities_that_sum_to_one(
    sequence: tuple[np.ndarray, list[float]], seconds: float
) -> None:
    logits, steps_s = sequence
    face, previous = Face(seconds), None
    for row, time_s in zip(softmax(logits), np.cumsum(steps_s), strict=True):
        state = face.next(row, float(time_s))
        assert state.shown[state.label] == state.shown.max()
        assert state.shown.sum() == pytest.approx(1, abs=1e-5)
        # The label changes only if the previous label has a smaller probability.
        assert previous in (None, state.label) or state.shown[previous] < state.shown[state.label]
        previous = state.label


def test_a_label_that_is_behind_shares_the_probability_of_the_classes_above_it() -> None:
    face = Face(0.001)
    face.next([0.1, 0.5, 0.4], 0.0)
    state = face.next([0.2, 0.38, 0.42], 1.0)
    assert state.label == 1
    np.testing.assert_allclose(state.shown, [0.2, 0.4, 0.4], rtol=1e-6)
    # The averages continue from the values before sharing, and their difference is the lead of 0.1.
    state = face.next([0.2, 0.34, 0.46], 2.0)
    assert state.label == 2
    np.testing.assert_allclose(state.shown, [0.2, 0.34, 0.46], rtol=1e-6)


def skipped(values: list[float], every: int, cut_at: int = -1) -> list[float]:
    """Return the smoothed probability of each frame; every Nth frame is classified, with an output from `values`."""
    face = Face(0.4)
    return [
        float(face.next(values[index - index % every], index * 0.04, index % every == 0, index == cut_at).shown[0])
        for index in range(len(values))
    ]


def test_a_steady_change_is_averaged_as_if_every_frame_were_classified() -> None:
    ramp = [0.9 - 0.02 * index for index in range(41)]
    shown = skipped(ramp, 5)
    np.testing.assert_allclose(shown[::5], skipped(ramp, 1)[::5], atol=1e-5)
    assert max(map(abs, np.subtract(shown, skipped(ramp, 1)))) > 0.005, "the frames between have the last output"


def test_a_cut_is_averaged_as_if_every_frame_were_classified() -> None:
    step = [0.9] * 10 + [0.1] * 11
    np.testing.assert_allclose(skipped(step, 5, cut_at=10), skipped(step, 1), atol=1e-5)
    assert skipped(step, 5)[10] < skipped(step, 1)[10] - 0.05, "without the cut the change is a transition"
