"""Accuracy by bands of a measure of the face, confidence intervals, and head angles from landmarks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekit.errors import InputError
from edgekit.models.evaluation.bands import accuracy_by, breakdowns, brightness_of, head_angles_deg
from edgekit.models.evaluation.evaluate import Evaluation
from edgekit.report.statistics import wilson_interval


def evaluation(sizes: list[float]) -> Evaluation:
    """Return the evaluation of four faces of two classes; the last face is classified wrongly."""
    logits = np.eye(2, dtype=np.float32)[[0, 0, 1, 0]]
    return Evaluation(("a", "b"), np.array([0, 0, 1, 1]), logits, measures={"size": np.array(sizes)})


def test_each_face_is_in_one_band_and_edges_belong_to_the_upper_one() -> None:
    found = accuracy_by(evaluation([20, 48, 95.9, 200]), "size")
    assert [band.total for band in found.bands] == [1, 2, 0, 1]
    assert [band.correct for band in found.bands] == [1, 2, 0, 0]
    assert [band.accuracy for band in found.bands] == [1.0, 1.0, None, 0.0]
    assert [band.name for band in found.bands] == ["below 48 px", "48 to 96 px", "96 to 144 px", "144 px and more"]
    assert found.unmeasured == 0


def test_a_face_without_the_measure_is_in_no_band() -> None:
    found = accuracy_by(evaluation([20, math.nan, 60, 60]), "size", ["b"])
    assert (sum(band.total for band in found.bands), found.unmeasured) == (3, 1)
    # The mean recall is that of class b alone: no face in the lowest band, one of two correct in the next.
    assert [band.mean_recall for band in found.bands[:2]] == [None, 0.5]
    assert found.as_document()["bands"][1]["interval"] == list(wilson_interval(1, 2))


def test_a_measure_that_no_face_has_is_one_line() -> None:
    with pytest.raises(InputError, match="no face has the measure 'yaw'"):
        breakdowns(evaluation([1, 2, 3, 4]), ["size", "pose"])
    with pytest.raises(InputError, match="measure 'age' is unknown"):
        accuracy_by(evaluation([1, 2, 3, 4]), "age")


def test_the_interval_is_wilsons() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, and 0 of 20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


@pytest.mark.parametrize(("yaw_deg", "roll_deg"), [(0, 0), (25, 0), (-40, 12), (15, -30)])
def test_the_angles_are_those_of_a_head_that_was_turned(yaw_deg: float, roll_deg: float) -> None:
    eyes_and_nose = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, 0.5, 0.6]]) * 40  # x right, y down, z to the camera
    yaw, roll = math.radians(yaw_deg), math.radians(roll_deg)
    turned_x = eyes_and_nose[:, 0] * math.cos(yaw) + eyes_and_nose[:, 2] * math.sin(yaw)
    plane = np.stack([turned_x, eyes_and_nose[:, 1]], axis=1)
    rotation = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    landmarks = np.concatenate([plane @ rotation.T + 100, np.zeros((2, 2))]).astype(np.float32)
    assert head_angles_deg(landmarks) == pytest.approx((abs(yaw_deg), abs(roll_deg)), abs=0.01)


def test_the_brightness_is_the_mean_of_each_image() -> None:
    images = np.stack([np.full((4, 4, 1), 10, np.uint8), np.full((4, 4, 1), 250, np.uint8)])
    assert brightness_of(images).tolist() == [10, 250]


def test_a_subset_keeps_the_measures_of_its_images() -> None:
    assert evaluation([1, 2, 3, 4]).subset(np.array([True, False, False, True])).measures["size"].tolist() == [1, 4]
