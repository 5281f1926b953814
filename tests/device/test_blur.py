"""Boxes to hide: of the latest half second, and never fewer than the faces of the frame."""

from __future__ import annotations

from dataclasses import replace

from edgekit.device.blur import FaceBlur
from tests.device.conftest import Feed


def test_boxes_of_the_latest_half_second_are_hidden(feed: Feed) -> None:
    blur = FaceBlur()
    for at_s, labels in ((10.0, ["happy"]), (10.3, ["happy", "sad"]), (10.6, [])):
        blur.update(*feed.next(*labels, at_s=at_s))
    assert len(blur.boxes()) == 2


def test_all_faces_of_a_crowd_are_hidden(feed: Feed) -> None:
    blur = FaceBlur()
    blur.update(*feed.next("happy", at_s=9.9))
    frame, result = feed.next(at_s=10.0)
    crowd = feed.next(*["happy"] * 300)[1].faces
    blur.update(frame, replace(result, faces=crowd))
    assert blur.boxes() == [face.xyxy for face in crowd]
