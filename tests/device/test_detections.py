"""`Detections`: arrays that can be sliced, and single faces as plain Python values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekit.device.detections import Detections, Track


@pytest.fixture
def found() -> Detections:
    xyxy = np.array([[0, 0, 10, 20], [5, 5, 50, 60], [1, 2, 3, 4]], np.float32)
    return Detections(xyxy, np.array([0.9, 0.8, 0.7], np.float32), np.arange(30, dtype=np.float32).reshape(3, 5, 2))


@pytest.fixture
def classified(found: Detections) -> Detections:
    return Detections(
        found.xyxy,
        found.scores,
        tracks=np.array([Track(4), Track(7), Track(2)], np.object_),
        detected=np.array([True, False, True]),
        probabilities=np.array([[0.25, 0.75], [0.5, 0.5], [0.625, 0.375]], np.float32),
        classes=("calm", "happy"),
        label_indices=np.array([1, 1, 0]),
        raw_probabilities=np.array([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]], np.float32),
        uncertain=np.array([False, True, False]),
        classified=np.array([True, False, True]),
    )


def test_a_face_has_plain_values(found: Detections, classified: Detections) -> None:
    first, second, _ = classified
    assert first.xyxy.tolist() == [0, 0, 10, 20]
    assert (first.score, first.label, first.probability) == (pytest.approx(0.9), "happy", 0.75)
    assert first.probabilities == {"calm": 0.25, "happy": 0.75}
    assert first.raw_probabilities == {"calm": 0.5, "happy": 0.5}
    assert (first.track_id, first.detected) == (4, True)
    assert (second.track_id, second.detected) == (7, False)
    assert (first.classified, second.classified) == (True, False)
    assert all(type(value) is float for value in (first.score, first.probability))
    assert (found[0].label, found[0].track_id) == ("", None)


def test_an_uncertain_face_has_the_probability_of_its_best_class(classified: Detections) -> None:
    assert classified.labels == ("happy", "uncertain", "calm")
    assert (classified[1].probability, classified[1].uncertain) == (0.5, True)
    assert not classified[2].uncertain


def test_unsmoothed_probabilities_are_the_shown_ones_by_default(classified: Detections) -> None:
    face = replace(classified, raw_probabilities=None)[0]
    assert face.raw_probabilities == face.probabilities


@pytest.mark.parametrize(
    ("index", "expected"),
    [(slice(1, None), [1, 2]), ([2, 0], [2, 0]), (np.array([False, True, False]), [1]), (slice(0, 0), [])],
)
def test_a_part_keeps_all_columns(
    found: Detections, classified: Detections, index: object, expected: list[int]
) -> None:
    part = classified[index]  # type: ignore[call-overload]
    assert len(part) == len(expected)
    assert list(map(str, part)) == [str(classified[one]) for one in expected]
    assert part.classes == classified.classes
    np.testing.assert_array_equal(found[index].landmarks_xy, found.landmarks_xy[expected])  # type: ignore[call-overload]
