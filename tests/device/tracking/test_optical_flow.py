"""Optical flow: boxes move with their content."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgekit.device.tracking.optical_flow import move_boxes
from edgekit.preprocess import ImageU8

BOX = np.array([100, 80, 160, 150], np.float32)
SIZE_WH = (320, 240)


@pytest.fixture(scope="module")
def texture() -> ImageU8:
    noise = np.random.default_rng(1).integers(0, 256, SIZE_WH[::-1], np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX), np.uint8)


def warped(picture: ImageU8, scale: float, shift: tuple[float, float]) -> ImageU8:
    """Return the image scaled about the centre of `BOX` and then shifted."""
    centre = (BOX[:2] + BOX[2:]) / 2
    matrix = np.float32([[scale, 0, 0], [0, scale, 0]])
    matrix[:, 2] = centre - scale * centre + shift
    return np.asarray(cv2.warpAffine(picture, matrix, SIZE_WH, borderMode=cv2.BORDER_REFLECT), np.uint8)


@pytest.mark.parametrize(
    ("scale", "shift"), [(1, (0, 0)), (1, (7.5, -4)), (1, (25, 10)), (1.06, (3, 0)), (0.95, (0, 2))]
)
def test_a_box_moves_and_grows_with_the_picture(texture: ImageU8, scale: float, shift: tuple[float, float]) -> None:
    (moved,) = move_boxes(texture, warped(texture, scale, shift), [BOX])
    centre, half = (BOX[:2] + BOX[2:]) / 2 + shift, (BOX[2:] - BOX[:2]) / 2 * scale
    assert moved is not None
    np.testing.assert_allclose(moved.xyxy, np.concatenate((centre - half, centre + half)), atol=1.0)
    assert moved.followed > 0.6


def test_boxes_of_a_frame_go_their_own_ways(texture: ImageU8) -> None:
    after = texture.copy()
    after[:, :160] = np.roll(texture, 5, axis=1)[:, :160]
    after[:, 160:] = np.roll(texture, -6, axis=0)[:, 160:]
    left, right = np.array([40, 60, 90, 120], np.float32), np.array([220, 100, 270, 160], np.float32)
    first, second = move_boxes(texture, after, [left, right])
    np.testing.assert_allclose(first.xyxy, left + np.float32([5, 0, 5, 0]), atol=0.7)
    np.testing.assert_allclose(second.xyxy, right + np.float32([0, -6, 0, -6]), atol=0.7)


def test_what_is_covered_by_something_else_is_lost(texture: ImageU8) -> None:
    other = np.asarray(texture[::-1, ::-1])
    after = texture.copy()
    after[60:170, 80:180] = other[60:170, 80:180]
    assert move_boxes(texture, after, [BOX]) == [None]


def test_the_part_that_sticks_out_is_not_counted(texture: ImageU8) -> None:
    box = np.array([-20, 80, 40, 140], np.float32)
    (moved,) = move_boxes(texture, warped(texture, 1, (4, 0)), [box])
    assert moved is not None
    np.testing.assert_allclose(moved.xyxy, box + np.float32([4, 0, 4, 0]), atol=1.0)
