"""Boxes and labels drawn into frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekit.device.annotate import class_colour, draw_faces, drawn_label
from edgekit.device.detections import Face

ORANGE_BGR = (0, 159, 230)
GREY_BGR = (158, 158, 158)
LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def face(*xyxy: float, label: str = "surprise") -> Face:
    return Face(xyxy, 0.9, label, 0.875, {label: 0.875})


def test_the_frame_itself_is_left_alone_and_without_faces_the_copy_is_equal():
    image = np.full((100, 100, 3), 7, np.uint8)
    drawn = draw_faces(image, [face(10, 30, 60, 80)])
    assert (image == 7).all()
    assert (drawn != 7).any()
    np.testing.assert_array_equal(draw_faces(image, []), image)


@pytest.mark.parametrize("xyxy", [(0, 0, 40, 40), (600, 0, 640, 40), (-50, -50, 700, 500), (630, 470, 640, 480)])
def test_the_label_stays_inside_the_frame(xyxy):
    image = np.zeros((480, 640, 3), np.uint8)
    drawn = draw_faces(image, [face(*xyxy, label="contempt")])
    plate = (drawn == ORANGE_BGR).all(axis=2)
    # The rows of the plate have the most filled pixels; a complete plate is as wide as its text.
    widest = max(int(row.sum()) for row in plate[:-1])
    assert widest > 120


def of_class(label: str, *xyxy: float, track_id: int = 1) -> Face:
    return Face(xyxy, 0.9, label, 0.875, dict.fromkeys(LABELS, 0.1), track_id)


def test_a_class_has_the_same_colour_in_every_frame_and_each_class_its_own():
    colours = [class_colour(of_class(label, 0, 0, 9, 9)) for label in LABELS]
    assert len(set(colours)) == len(LABELS)
    image = np.zeros((200, 300, 3), np.uint8)
    for others in ([], [of_class("sad", 200, 100, 250, 150)]):
        drawn = draw_faces(image, [*others, of_class("happy", 50, 60, 120, 150)])
        assert tuple(drawn[120, 50]) == colours[LABELS.index("happy")]


def test_an_uncertain_face_is_grey():
    uncertain = replace(of_class("happy", 50, 60, 120, 150), label="uncertain", uncertain=True)
    drawn = draw_faces(np.zeros((200, 300, 3), np.uint8), [uncertain])
    assert tuple(drawn[120, 50]) == GREY_BGR


def test_a_box_of_the_whole_frame_has_no_outline_and_one_of_its_width_has():
    image = np.zeros((480, 640, 3), np.uint8)
    rows, columns = np.nonzero(draw_faces(image, [face(0, 0, 640, 480)]).max(axis=2))
    assert (rows.min(), columns.min(), rows.max() < 50, columns.max() < 320) == (0, 0, True, True)
    drawn = draw_faces(image, [face(0, 200, 640, 300)]).max(axis=2) > 0
    assert (drawn[200:300, 1].all(), drawn[299:301, 300].any()) == (True, True)


def test_a_label_that_cannot_be_drawn_is_a_number_and_no_question_marks():
    labels = {
        "zły": "class 0",
        "happy": "happy",
        "smutný": "smutny",
        "سعيد": "class 3",
        "?é": "?e",
        "häppy": "class 5",
    }
    assert [drawn_label(label, tuple(labels)) for label in labels] == list(labels.values())
