"""Track ids: a face keeps its id over detections, moves and short gaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekit.device.detections import Detections
from edgekit.device.tracking.tracks import TrackManager, iou, match


def boxes(*corners: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(corners, np.float32).reshape(-1, 4)


def found(*corners: tuple[float, float, float, float]) -> Detections:
    return Detections(boxes(*corners), np.linspace(0.9, 0.8, len(corners), dtype=np.float32))


def ids(tracker: TrackManager) -> list[int]:
    return [track.id for track in tracker.visible]


def at(x: float, y: float = 100, side: float = 40) -> tuple[float, float, float, float]:
    return (x, y, x + side, y + side)


def test_overlap_of_boxes() -> None:
    overlaps = iou(boxes((0, 0, 10, 10), (0, 0, 0, 0)), boxes((0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30)))
    np.testing.assert_allclose(overlaps, [[1, 1 / 3, 0], [0, 0, 0]], rtol=1e-6)


def test_pairs_take_the_largest_overlap_first_and_each_box_once() -> None:
    assert match([boxes(at(0))[0], boxes(at(10))[0]], [boxes(at(8))[0]]) == [(1, 0)]
    assert match([], [boxes(at(0))[0]]) == []


def test_a_face_that_jumped_is_matched_by_place_and_size_but_no_other_is() -> None:
    track = [boxes(at(300))[0]]
    assert match(track, [boxes(at(320, 112))[0]]) == [(0, 0)], "little overlap, near, and as large"
    assert match(track, [boxes(at(360))[0]]) == []
    assert match(track, [boxes(at(305, 105, 12))[0]]) == [], "another size"


@pytest.mark.parametrize(
    ("shift_px", "side_px", "same"), [(23, 40, True), (25, 40, False), (33, 58, True), (36, 58, False), (33, 63, False)]
)
def test_the_limits_of_a_jump_are_shares_of_the_size(shift_px: float, side_px: float, same: bool) -> None:
    """Centres at most 0.6 of the larger side apart, and sides that differ by a factor of at most 1.5."""
    x, y = 320 + 0.6 * shift_px, 100 + 0.8 * shift_px
    box = boxes((x - side_px / 2, y - side_px / 2, x + side_px / 2, y + side_px / 2))
    track = boxes((300, 80, 340, 120))
    assert iou(track, box) < 0.25, "the overlap alone does not decide"
    assert bool(match(list(track), list(box))) == same


def test_a_face_keeps_its_id_over_detections_and_new_ones_get_new_ids() -> None:
    tracker = TrackManager()
    tracker.correct(found(at(0), at(200)), 0.0)
    tracker.correct(found(at(205), at(6), at(400)), 0.1)
    assert sorted(ids(tracker)) == [1, 2, 3]
    assert {track.id: float(track.xyxy[0]) for track in tracker.visible} == {1: 6.0, 2: 205.0, 3: 400.0}
    assert all(track.detected for track in tracker.visible)


def test_landmarks_belong_to_the_faces_of_a_detection_and_are_gone_once_a_face_has_moved() -> None:
    tracker = TrackManager()
    tracker.correct(found(at(0), at(200)), 0.0)
    assert tracker.detections().landmarks_xy is None, "a detector without landmarks"
    points = np.arange(20, dtype=np.float32).reshape(2, 5, 2)
    tracker.correct(replace(found(at(205), at(6)), landmarks_xy=points), 0.1)
    np.testing.assert_array_equal(tracker.detections().landmarks_xy, points[::-1])
    tracker.move([boxes(at(8))[0], boxes(at(208))[0]], 0.2)
    assert tracker.detections().landmarks_xy is None


def test_moved_faces_are_marked_and_lost_ones_are_hidden() -> None:
    tracker = TrackManager()
    tracker.correct(found(at(0), at(200)), 0.0)
    assert tracker.move([boxes(at(3))[0], boxes(at(203))[0]], 0.1)
    assert [track.detected for track in tracker.visible] == [False, False]
    assert not tracker.move([None, boxes(at(206))[0]], 0.2)
    assert ids(tracker) == [2]


def test_a_face_that_passes_behind_another_comes_back_under_its_own_id() -> None:
    tracker = TrackManager()
    step_s = 0.1
    for step in range(21):
        left, right = at(20 * step), at(400 - 20 * step, 104)
        # While the faces overlap, the detector finds only the front face.
        hidden = abs(left[0] - right[0]) < 30
        tracker.correct(found(right) if hidden else found(left, right), step * step_s)
        if not hidden:
            by_place = {track.id: float(track.xyxy[0]) for track in tracker.visible}
            assert by_place == {1: left[0], 2: right[0]}, step
        else:
            assert ids(tracker) == [2]


@pytest.mark.parametrize("followed", [False, True])
def test_a_hidden_face_is_expected_where_its_speed_takes_it(followed: bool) -> None:
    tracker = TrackManager()
    for step in range(11):
        if followed and 0 < step < 6:
            tracker.move([boxes(at(20 * step))[0]], step * 0.1)
        else:
            tracker.correct(found() if 5 < step < 10 else found(at(20 * step)), step * 0.1)
    assert ids(tracker) == [1]


def test_a_hidden_face_moves_on_while_another_is_followed() -> None:
    tracker = TrackManager()
    for step in range(4):
        tracker.correct(found(at(20 * step), at(500)), step * 0.1)
    tracker.move([None, boxes(at(500))[0]], 0.4)
    for step in range(5, 8):
        tracker.move([boxes(at(500))[0]], step * 0.1)
    tracker.correct(found(at(160), at(500)), 0.8)
    assert ids(tracker) == [1, 2]


def test_a_face_hidden_for_long_is_forgotten_and_its_id_is_not_given_again() -> None:
    tracker = TrackManager()
    tracker.correct(found(at(0)), 0.0)
    (track,) = tracker.visible
    for time_s in (0.5, 1.0, 1.5):
        tracker.correct(found(), time_s)
    tracker.correct(found(at(0)), 2.0)
    assert ids(tracker) == [2]
    assert track.ended_s == 1.5


def test_faces_that_left_the_region_are_forgotten() -> None:
    tracker = TrackManager()
    tracker.correct(found(at(0), at(200)), 0.0)
    gone, _ = tracker.visible
    tracker.keep_inside((100, 0, 640, 480))
    assert (ids(tracker), gone.ended_s) == ([2], 0.0)


@pytest.mark.parametrize("times_s", [(0.0, 0.0), (1.0, 0.5)])
def test_time_that_stands_still_or_runs_back_does_no_harm(times_s: tuple[float, float]) -> None:
    tracker = TrackManager()
    for time_s in times_s:
        tracker.correct(found(at(0)), time_s)
        tracker.move([boxes(at(1))[0]], time_s)
    assert ids(tracker) == [1]
    assert np.isfinite(tracker.visible[0].xyxy).all()
