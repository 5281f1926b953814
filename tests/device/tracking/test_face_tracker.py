"""Detection and tracking of faces: schedule, ids, region, smallest face, largest face, and detector input."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgekit.device.detections import Detections
from edgekit.device.frame import Frame, split_planes
from edgekit.device.region import Region, detector_input_px, scaled_input_px
from edgekit.device.stages import StageTimer
from edgekit.device.tracking import FaceTracker, flow_luma
from edgekit.device.tracking.detection_schedule import Adaptive, Every

SIZE_WH = (320, 240)
FACE_PX = 48


class Squares:
    """A detector that finds the bright squares of `picture` and records the sizes of its input images."""

    name = "squares"

    def __init__(self) -> None:
        self.shown: list[tuple[int, int]] = []
        self.input_size_px = 320

    def detect(self, image_bgr: np.ndarray) -> Detections:
        self.shown.append((image_bgr.shape[1], image_bgr.shape[0]))
        red = (image_bgr[:, :, 2] > 150).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(red)
        boxes = [(x, y, x + w, y + h) for x, y, w, h, area in stats[1:].tolist() if area > 20]
        return Detections(np.array(sorted(boxes), np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, np.float32))


def picture(
    *corners_xy: tuple[int, int], sizes: tuple[int, ...] = (), size_wh: tuple[int, int] = SIZE_WH
) -> np.ndarray:
    """Return dark noise with bright squares; each square has its own noise, which moves with it."""
    image = np.random.default_rng(0).integers(20, 60, (*size_wh[::-1], 3), np.uint8)
    for index, (x, y) in enumerate(corners_xy):
        side = sizes[index] if sizes else FACE_PX
        noise = np.random.default_rng(index + 1).integers(0, 255, (12, 12), np.uint8)
        patch = np.zeros((side, side, 3), np.uint8)
        patch[:, :, 1] = cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
        patch[:, :, 2] = 200
        image[y : y + side, x : x + side] = patch
    return image


def frames(*images: np.ndarray) -> list[Frame]:
    return [Frame(index, index * 0.04, index * 0.04, image) for index, image in enumerate(images)]


def box(x: float, y: float, side: float = FACE_PX) -> list[float]:
    return [x, y, x + side, y + side]


@pytest.mark.parametrize("scale", [1, 4])
def test_between_searches_faces_are_followed_under_their_ids(scale: int) -> None:
    squares = Squares()
    face_tracker = FaceTracker(squares, Every(4))
    images = [picture((40 + 5 * step, 60), (220, 150 - 4 * step)) for step in range(9)]
    large = [image.repeat(scale, axis=0).repeat(scale, axis=1) for image in images]
    for index, frame in enumerate(frames(*large)):
        timer = StageTimer()
        faces = face_tracker.find(frame, timer)
        searched = index % 4 == 0
        assert faces.track_ids.tolist() == [1, 2]
        assert faces.detected.tolist() == [searched, searched]
        assert ("detect" in timer.ms, "track" in timer.ms) == (searched, True)
        boxes = np.array([box(40 + 5 * index, 60), box(220, 150 - 4 * index)])
        np.testing.assert_allclose(faces.xyxy, scale * boxes, atol=2 * scale)
    assert len(squares.shown) == 3


def test_without_a_schedule_every_frame_stands_alone() -> None:
    face_tracker = FaceTracker(Squares(), None)
    for frame in frames(picture((40, 60)), picture((200, 60))):
        faces = face_tracker.find(frame, timer := StageTimer())
        assert (faces.track_ids, faces.detected, list(timer.ms)) == (None, None, ["detect"])
        assert [(face.track_id, face.detected) for face in faces] == [(None, True)]


def test_every_frame_searched_needs_no_following_but_gives_ids() -> None:
    face_tracker = FaceTracker(Squares(), Every(1), tracker=lambda *_: pytest.fail("nothing to follow"))
    for frame in frames(*(picture((40 + 8 * step, 60)) for step in range(4))):
        faces = face_tracker.find(frame, StageTimer())
        assert (faces.track_ids.tolist(), faces.detected.tolist()) == ([1], [True])


def test_a_frame_of_another_size_is_searched() -> None:
    face_tracker = FaceTracker(squares := Squares(), Every(10))
    others = [picture((x, 60), size_wh=(400, 300)) for x in (40, 42)]
    for frame in frames(picture((40, 60)), *others):
        face_tracker.find(frame, StageTimer())
    assert squares.shown == [SIZE_WH, (400, 300)]


@pytest.mark.parametrize("region", [Region(160, 40, 120, 160), Region(0.5, 1 / 6, 0.375, 2 / 3)])
def test_only_the_region_is_searched_and_only_for_faces_of_the_least_size(region: Region) -> None:
    face_tracker = FaceTracker(squares := Squares(), Every(1), region=region, min_face_px=40)
    (frame,) = frames(picture((40, 60), (180, 60), (240, 150), sizes=(48, 48, 30)))
    assert face_tracker.find(frame, StageTimer()).xyxy.tolist() == [box(180, 60)]
    assert squares.shown == [(120, 160)]


def test_a_face_followed_out_of_the_region_is_let_go() -> None:
    face_tracker = FaceTracker(Squares(), Every(100), region=Region(0, 0, 160, 240))
    counts = [
        len(face_tracker.find(frame, StageTimer()))
        for frame in frames(*(picture((90 + 8 * step, 100)) for step in range(10)))
    ]
    assert (counts[0], counts[-1]) == (1, 0)


def test_the_largest_face_stays_until_another_is_clearly_larger() -> None:
    face_tracker = FaceTracker(Squares(), Every(1), largest_only=True)
    lefts = []
    for sizes in ((50,), (50, 53), (50, 60), (64, 60)):
        (frame,) = frames(picture(*((20, 60), (200, 60))[: len(sizes)], sizes=sizes))
        faces = face_tracker.find(frame, StageTimer())
        assert len(faces) == 1
        lefts.append(faces.xyxy[0, 0])
    assert lefts == [20, 20, 200, 200]


def test_the_detectors_input_is_chosen_for_the_least_face_and_eased_under_load() -> None:
    squares = Squares()
    face_tracker = FaceTracker(squares, Every(2), min_face_px=24, choose_input_size=True)
    first, *others = frames(*(picture((40, 60)) for _ in range(7)))
    face_tracker.find(first, StageTimer())
    assert (squares.input_size_px, face_tracker.input_size_px) == (320, 320)
    squares.shown.clear()
    face_tracker.set_load_level(detect_every_at_least=3, detector_scale=0.5)
    for frame in others:
        face_tracker.find(frame, StageTimer())
    assert (len(squares.shown), squares.input_size_px, face_tracker.input_size_px) == (2, 160, 320)
    face_tracker.set_load_level()
    while len(squares.shown) == 2:
        face_tracker.find(others[-1], StageTimer())
    assert squares.input_size_px == 320


def test_the_detectors_input_is_chosen_for_each_size_of_pictures_if_it_has_one() -> None:
    face_tracker = FaceTracker(squares := Squares(), None, min_face_px=24, choose_input_size=True)
    small, sizes_px = picture((40, 60)), []
    for frame in frames(small, np.tile(small, (2, 2, 1)), small):
        face_tracker.find(frame, StageTimer())
        sizes_px.append(squares.input_size_px)
    assert sizes_px == [320, 640, 320]
    del squares.input_size_px
    face_tracker = FaceTracker(squares, None, min_face_px=24, choose_input_size=True)
    face_tracker.find(*frames(small), StageTimer())
    assert face_tracker.input_size_px is None


def test_input_sizes_are_multiples_of_32_and_stay_as_given_at_full_load() -> None:
    cases = {(640, 480, 0): 320, (640, 480, 60): 256, (640, 480, 24): 640, (640, 480, 5): 640, (1920, 1080, 200): 256}
    assert {case: detector_input_px(case[:2], case[2]) for case in cases} == cases
    assert [scaled_input_px(320, share) for share in (1, 0.75, 0.5, 0.01)] == [320, 256, 160, 32]
    assert scaled_input_px(100, 1) == 100


def test_the_small_stream_is_searched_and_boxes_are_in_pixels_of_the_frame() -> None:
    image = picture((40, 60), (180, 100))

    def planes(picture_bgr: np.ndarray):
        height, width = picture_bgr.shape[:2]
        i420 = cv2.cvtColor(picture_bgr, cv2.COLOR_BGR2YUV_I420).reshape(-1)
        return split_planes(i420, (width, height), width, "i420", full_range=False)

    small = cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA)
    frame = Frame(0, 0.0, 0.0, planes(image), small=planes(small))
    squares = Squares()
    faces = FaceTracker(squares, Every(1)).find(frame, StageTimer())
    assert squares.shown == [(160, 120)]
    np.testing.assert_allclose(faces.xyxy, [box(40, 60), box(180, 100)], atol=4)
    assert flow_luma(frame).shape == (120, 160)


def test_limited_range_becomes_the_gray_that_nets_know() -> None:
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8), (0, 0), 4)
    image = np.asarray(cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX), np.uint8)
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(int)
    i420 = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420).reshape(-1)
    planes = split_planes(i420, (160, 120), 160, "i420", full_range=False)
    assert np.abs(planes.luma.astype(int) - gray).max() <= 2
    assert np.abs(planes.bgr.astype(int) - image).mean() < 6
    full = split_planes(planes.luma.repeat(2)[: i420.size], (160, 120), 160, "i420", full_range=True)
    assert np.shares_memory(full.luma, full.raw_luma), "no conversion, no copy"


def scenes(*names: str) -> list[np.ndarray]:
    """Return pictures in which a detector finds the same bright square, each in another scene."""
    shown = {
        "day": np.linspace(0, 150, SIZE_WH[0])[np.newaxis, :],
        "evening": np.linspace(150, 0, SIZE_WH[1])[:, np.newaxis],
        "black": np.zeros((1, 1)),
    }
    images = []
    for name in names:
        gray = np.broadcast_to(shown[name], SIZE_WH[::-1]).astype(np.uint8)
        image = np.repeat(gray[:, :, np.newaxis], 3, axis=2)
        if name != "black":
            image[60 : 60 + FACE_PX, 40 : 40 + FACE_PX] = picture((0, 0))[:FACE_PX, :FACE_PX]
        images.append(image)
    return images


@pytest.mark.parametrize("schedule", [Every(1), Every(100), Adaptive()])
@pytest.mark.parametrize(
    ("names", "last_id"),
    [
        (("day", "day", "evening", "evening"), 2),
        (("day", "black", "evening"), 2),
        (("day", "black", "day", "day"), 1),
    ],
)
def test_at_a_cut_all_tracks_end_and_the_next_faces_are_others(schedule, names, last_id) -> None:
    squares = Squares()
    face_tracker = FaceTracker(squares, schedule)
    first, *others = frames(*scenes(*names))
    track = face_tracker.find(first, StageTimer()).tracks[0]
    shown = [face_tracker.find(frame, StageTimer()) for frame in others]
    if last_id == 2:
        cut = others[names.index("evening") - 1]
        assert (shown[-1].track_ids.tolist(), track.ended_s) == ([2], cut.monotonic_s)
    else:
        assert track.ended_s == np.inf


def test_light_that_flickers_ends_no_track() -> None:
    face_tracker = FaceTracker(Squares(), Every(1))
    (image,) = scenes("day")
    for gain, offset in ((1.0, 0), (1.2, 30), (0.9, 0), (1.25, 0), (0.9, 25)):
        lit = np.clip(image * gain + offset, 0, 255).astype(np.uint8)
        (frame,) = frames(lit)
        assert face_tracker.find(frame, StageTimer()).track_ids.tolist()[:1] == [1]
