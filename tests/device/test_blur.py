"""Blurred boxes: those of the last half second, and at least all faces of the frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekit.device.annotate import FaceBlur
from tests.device.conftest import Feed


def test_boxes_of_the_latest_half_second_are_hidden(feed: Feed) -> None:
    blur = FaceBlur()
    for at_s, labels in ((10.0, ["happy"]), (10.3, ["happy", "sad"]), (10.6, [])):
        boxes = blur.update(*feed.next(*labels, at_s=at_s))
    assert len(boxes) == 2


@pytest.mark.parametrize(("is_tracked", "hidden"), [(False, 1), (True, 3)])
def test_boxes_of_pictures_are_hidden_in_their_picture_only_unless_the_pictures_are_a_sequence(
    feed: Feed, is_tracked: bool, hidden: int
) -> None:
    blur = FaceBlur()
    for at_s, labels in ((10.0, ["happy", "sad"]), (10.04, ["happy"])):
        frame, result = feed.next(*labels, at_s=at_s)
        faces = tuple(replace(face, track_id=face.track_id if is_tracked else None) for face in result.faces)
        boxes = blur.update(replace(frame, file="a.png"), replace(result, faces=faces))
    assert len(boxes) == hidden


def test_all_faces_of_a_crowd_are_hidden(feed: Feed) -> None:
    blur = FaceBlur()
    blur.update(*feed.next("happy", at_s=9.9))
    frame, result = feed.next(at_s=10.0)
    crowd = feed.next(*["happy"] * 300)[1].faces
    boxes = blur.update(frame, replace(result, faces=crowd))
    assert np.array_equal(boxes[-300:], crowd.xyxy)
