"""The schedule of detections."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.device.tracking.detection_schedule import Adaptive, Every, TrackingState, coarse_image
from edgekit.preprocess import ImageU8

FACE = np.array([120, 60, 180, 130], np.float32)


@pytest.fixture
def luma() -> ImageU8:
    return np.random.default_rng(0).integers(60, 180, (240, 320), np.uint8)


def state(luma: ImageU8, frames: int, *boxes: np.ndarray, **changes: object) -> TrackingState:
    values = {"elapsed_s": frames * 0.04, "boxes": boxes or (FACE,), "lost": False, "followed": 1.0} | changes
    return TrackingState(frames=frames, coarse=coarse_image(luma), size_wh=(320, 240), **values)  # type: ignore[arg-type]


def first_due(schedule: Adaptive, luma: ImageU8, *boxes: np.ndarray, **changes: object) -> int:
    return next(frames for frames in range(1, 50) if schedule.due(state(luma, frames, *boxes, **changes)))


@pytest.fixture
def adaptive(luma: ImageU8) -> Adaptive:
    schedule = Adaptive()
    schedule.detected(coarse_image(luma), changed=True)
    schedule.detected(coarse_image(luma), changed=False)
    return schedule


def test_every_nth_frame(luma) -> None:
    assert [Every(3).due(state(luma, frames)) for frames in (1, 2, 3, 4)] == [False, False, True, True]
    assert (Every(1).follows, Every(2).follows) == (False, True)


def test_a_still_scene_is_searched_rarely(adaptive, luma) -> None:
    assert first_due(adaptive, luma) == 10


def test_a_slow_camera_is_searched_by_time(adaptive, luma) -> None:
    assert adaptive.due(state(luma, 2, elapsed_s=0.6))


def test_a_lost_face_is_looked_for_at_once(adaptive, luma) -> None:
    assert first_due(adaptive, luma, lost=True) == 1


def test_a_face_hard_to_follow_and_faces_that_touch_are_looked_at_soon(adaptive, luma) -> None:
    assert first_due(adaptive, luma, followed=0.4) == 2
    assert first_due(adaptive, luma, FACE, FACE + np.float32(30)) == 2
    assert first_due(adaptive, luma, FACE, FACE + np.float32(90)) == 10


def test_somebody_who_comes_in_is_noticed(adaptive, luma) -> None:
    entered = luma.copy()
    entered[80:200, 0:60] = 255
    assert first_due(adaptive, entered) == 5


def test_without_any_face_a_change_is_looked_at_at_once(adaptive, luma) -> None:
    entered = luma.copy()
    entered[80:200, 0:60] = 255
    assert adaptive.due(state(entered, 1, boxes=()))
    assert [adaptive.due(state(luma, frames, boxes=())) for frames in (1, 2, 9, 10)] == [False, False, False, True]


def test_a_body_that_moves_with_its_face_and_light_that_changes_are_no_news(adaptive, luma) -> None:
    body = luma.copy()
    body[130:240, 90:210] = 20
    assert first_due(adaptive, body) == 10
    assert first_due(adaptive, luma + np.uint8(40)) == 10


def test_changes_that_meant_nothing_are_believed_less(adaptive, luma) -> None:
    flicker = luma.copy()
    flicker[80:200, 0:60] = 255
    waits = []
    for _ in range(8):
        waits.append(first_due(adaptive, flicker))
        adaptive.detected(coarse_image(luma), changed=False)
    assert waits == [5, 6, 7, 8, 9, 10, 10, 10]
    adaptive.detected(coarse_image(luma), changed=True)
    adaptive.detected(coarse_image(luma), changed=False)
    assert first_due(adaptive, flicker) == 5


def test_a_face_that_came_or_went_is_looked_at_again_in_the_next_frame(adaptive, luma) -> None:
    adaptive.detected(coarse_image(luma), changed=True)
    assert first_due(adaptive, luma) == 1
    adaptive.detected(coarse_image(luma), changed=False)
    assert first_due(adaptive, luma) == 10
