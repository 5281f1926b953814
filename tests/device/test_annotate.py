"""Boxes and labels drawn into frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekit.device.annotate import draw_faces
from edgekit.device.detections import Face


def face(*xyxy: float, label: str = "surprise") -> Face:
    return Face(xyxy, 0.9, label, 0.875, {label: 0.875})


def test_the_frame_itself_is_left_alone_and_without_faces_the_copy_is_equal():
    image = np.full((100, 100, 3), 7, np.uint8)
    drawn = draw_faces(image, [face(10, 30, 60, 80)])
    assert (image == 7).all()
    assert (drawn != 7).any()
    np.testing.assert_array_equal(draw_faces(image, []), image)


@pytest.mark.parametrize("size_hw", [(144, 176), (480, 640), (1080, 1920)])
def test_letters_and_lines_grow_with_the_frame(size_hw):
    height, width = size_hw
    image = np.zeros((height, width, 3), np.uint8)
    drawn = draw_faces(image, [face(width * 0.3, height * 0.4, width * 0.6, height * 0.9)]).max(axis=2) > 0
    line_px = int(drawn[int(height * 0.7), : width // 2].sum())
    assert line_px == pytest.approx(max(1, height / 240), abs=1.01 + height / 480)
    plate_px = int(drawn[: int(height * 0.4), int(width * 0.32)].sum())
    assert 0.04 < plate_px / height < 0.15


@pytest.mark.parametrize("xyxy", [(0, 0, 40, 40), (600, 0, 640, 40), (-50, -50, 700, 500), (630, 470, 640, 480)])
def test_the_label_stays_inside_the_frame(xyxy):
    image = np.zeros((480, 640, 3), np.uint8)
    drawn = draw_faces(image, [face(*xyxy, label="contempt")])
    plate = (drawn == (80, 220, 60)).all(axis=2)
    # The plate is the widest filled run of a row: whole, so as wide as its text wherever it stands.
    widest = max(int(row.sum()) for row in plate[:-1])
    assert widest > 120


def test_an_uncertain_face_is_gray():
    image = np.zeros((480, 640, 3), np.uint8)
    drawn = draw_faces(image, [replace(face(100, 100, 300, 300, label="uncertain"), uncertain=True)])
    assert (drawn.max(axis=2) == drawn.min(axis=2)).all()
    assert drawn.max() > 100


def test_letters_that_the_font_lacks_do_no_harm():
    image = np.zeros((200, 200, 3), np.uint8)
    assert draw_faces(image, [face(10, 50, 90, 90, label="überrascht 😀")]).any()


def test_the_whole_frame_gets_its_label_at_the_top_left_and_no_outline():
    image = np.zeros((480, 640, 3), np.uint8)
    drawn = draw_faces(image, [face(0, 0, 640, 480)]).max(axis=2) > 0
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), columns.min()) == (0, 0)
    assert (rows.max() < 50, columns.max() < 320) == (True, True)


def test_a_region_is_outlined_on_all_sides():
    image = np.zeros((480, 640, 3), np.uint8)
    drawn = draw_faces(image, [face(0, 200, 640, 300)]).max(axis=2) > 0
    assert drawn[200:300, 1].all()
    assert drawn[299:301, 300].any()


def test_a_label_wider_than_the_frame_is_made_smaller():
    image = np.full((40, 48, 3), 255, np.uint8)
    letters = draw_faces(image, [face(0, 0, 48, 40, label="WWWWWWWWWWWW")]).max(axis=2) < 150
    assert letters[:, :44].any()
    assert not letters[:, -1].any(), "the text ends before the edge of the frame"
