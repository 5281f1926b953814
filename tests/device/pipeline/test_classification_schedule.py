"""The choice of the faces that are classified in a frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import edgekit
from edgekit.device.detections import Classification, Detections, Track
from edgekit.device.frame import Frame
from edgekit.device.pipeline.classification_schedule import ClassifyEvery, choose
from edgekit.device.pipeline.loop import classify
from edgekit.device.stages import StageTimer
from edgekit.preprocess import ImageU8
from tests.device.videos import plain_frames, write_video

CLEAR, CLOSE = (0.9, 0.05, 0.05), (0.44, 0.36, 0.2)
STEP_S = 0.04


def pictures(*seeds: int) -> ImageU8:
    """Return crops of noise blocks, a different crop for each seed."""
    blocks = [np.random.default_rng(seed).integers(40, 200, (11, 11, 1), np.uint8) for seed in seeds]
    return np.stack([block.repeat(4, axis=0).repeat(4, axis=1) for block in blocks])


class Faces:
    """Passes frames 0.04 s apart to a schedule, and returns which faces were classified."""

    def __init__(self, every: ClassifyEvery, *, are_images: bool = False) -> None:
        self.every = every
        self.are_images = are_images
        self.frames = 0
        self.known: dict[int, Classification] = {}

    def next(
        self,
        crops: ImageU8,
        raw: Sequence[float] = CLEAR,
        ids: Sequence[int] | None = None,
        uncertain: bool = False,
        is_close: bool = False,
        smoothed: Sequence[float] | None = None,
    ) -> list[bool]:
        ids = list(range(1, len(crops) + 1) if ids is None else ids)
        time_s = self.frames * STEP_S
        last = [self.known.get(track_id) for track_id in ids]
        choice = choose(crops, last, time_s, self.every, are_images=self.are_images)
        self.frames += 1
        for index, track_id in enumerate(ids):
            row, shown = np.array(raw, np.float32), np.array(smoothed or raw, np.float32)
            face = self.known.setdefault(track_id, Classification(row, row, shown, 0, time_s, time_s))
            face.seen_s, face.shown, face.uncertain, face.is_close = time_s, shown, uncertain, is_close
            if choice.due[index]:
                face.raw, face.classified_s = row, time_s
            choice.record(index, face)
        return choice.due.tolist()


@pytest.fixture
def faces() -> Faces:
    return Faces("auto")


def test_a_still_face_is_classified_when_it_is_new_and_at_least_every_fifth_of_a_second(faces: Faces) -> None:
    classified = [index for index in range(20) if faces.next(pictures(1)) == [True]]
    assert classified == [0, 5, 10, 15], "five frames are 0.2 s, six would be 0.24 s"


def test_a_face_is_classified_at_once_when_its_crop_changes(faces: Faces) -> None:
    seeds = [1, 1, 1, 2, 2, 2, 2]
    assert [faces.next(pictures(seed)) for seed in seeds] == [[index in (0, 3)] for index in range(7)]


def test_a_slow_change_is_measured_from_the_crop_that_was_classified_last(faces: Faces) -> None:
    before, after = (pictures(seed).astype(np.float32) for seed in (1, 2))
    mixed = [(before + (after - before) * share).astype(np.uint8) for share in np.linspace(0, 1, 7)]
    classified = [index for index, crop in enumerate(mixed) if faces.next(crop) == [True]]
    assert len(classified) == 3
    assert max(np.diff(classified)) < 4, "before 0.16 s"


@pytest.mark.parametrize(("raw", "classified"), [(CLEAR, False), (CLOSE, True)])
def test_a_clear_face_needs_a_larger_change(faces: Faces, raw: tuple[float, ...], classified: bool) -> None:
    before, after = (pictures(seed).astype(np.float32) for seed in (1, 2))
    faces.next(pictures(1), raw)
    assert faces.next((before + 0.3 * (after - before)).astype(np.uint8)) == [classified]


@pytest.mark.parametrize("raw", [CLEAR, CLOSE])
def test_a_standing_scene_is_classified_once_per_second(raw: tuple[float, ...]) -> None:
    images, noise = Faces("auto", are_images=True), np.random.default_rng(0)
    noisy = [(pictures(1) + noise.normal(0, 4, (1, 44, 44, 1))).astype(np.uint8) for _ in range(60)]
    assert [index for index, image in enumerate(noisy) if images.next(image, raw) == [True]] == [0, 25, 50]


def test_a_small_object_in_a_standing_scene_is_classified_at_once() -> None:
    images, with_object = Faces("auto", are_images=True), pictures(1)
    with_object[0, 20:26, 30:36] = 255
    shown = [pictures(1), pictures(1), with_object, with_object, pictures(1), pictures(1)]
    assert [images.next(image) == [True] for image in shown] == [True, False, True, False, True, False]


def test_exposure_contrast_and_noise_of_a_plain_area_are_no_change(faces: Faces) -> None:
    faces.next(pictures(1))
    for gain, offset in ((0.5, 0), (1.0, 40), (0.7, 60)):
        assert faces.next((pictures(1) * gain + offset).astype(np.uint8)) == [False]
    noise = np.random.default_rng(0)
    plain = [(120 + noise.normal(0, 2, (1, 44, 44, 1))).astype(np.uint8) for _ in range(4)]
    assert [faces.next(crop, ids=[2]) for crop in plain] == [[True]] + [[False]] * 3


def test_another_colour_of_equal_brightness_is_a_change(faces: Faces) -> None:
    first = np.full((1, 44, 44, 3), (20, 60, 220), np.uint8)
    faces.next(first)
    assert faces.next(first) == [False]
    assert faces.next(first[..., ::-1]) == [True]


@pytest.mark.parametrize(
    ("raw", "uncertain", "is_close", "undecided"),
    [
        (CLOSE, False, False, True),
        ((0.6, 0.35, 0.05), False, False, False),
        (CLOSE, True, False, False),  # the order of the classes is not shown
        (CLEAR, True, True, True),
        (CLEAR, False, True, True),
        (CLEAR, False, False, False),
    ],
)
def test_an_undecided_face_is_classified_in_every_other_frame(
    faces: Faces, raw: tuple[float, ...], uncertain: bool, is_close: bool, undecided: bool
) -> None:
    classified = [faces.next(pictures(1), raw, uncertain=uncertain, is_close=is_close) for _ in range(4)]
    assert classified == [[True], [False], [undecided], [False]]


@pytest.mark.parametrize("uncertain", [False, True])
def test_a_face_is_undecided_while_the_last_output_has_another_class(faces: Faces, uncertain: bool) -> None:
    other = CLEAR[::-1]
    classified = [faces.next(pictures(1), CLEAR, uncertain=uncertain, smoothed=other) for _ in range(3)]
    assert classified == [[True], [False], [True]]


def test_two_faces_are_classified_per_frame_and_the_others_take_turns(faces: Faces) -> None:
    five = pictures(*range(5))
    assert faces.next(five) == [True] * 5, "new faces do not wait"
    counts = [0] * 5
    for index in range(15):
        due = faces.next(pictures(*range(10 * index + 10, 10 * index + 15)))
        assert sum(due) == 2
        counts = [count + is_due for count, is_due in zip(counts, due, strict=True)]
    assert min(counts) >= 5
    assert faces.next(pictures(*range(200, 206))).count(True) == 3, "a new face and two others"


def test_each_track_has_its_own_history(faces: Faces) -> None:
    faces.next(pictures(1, 2), ids=(1, 2))
    assert faces.next(pictures(2, 1), ids=(2, 1)) == [False, False]
    assert faces.next(pictures(1, 2), ids=(2, 1)) == [True, True]


def test_every_nth_frame_of_each_track_is_classified_whatever_it_shows() -> None:
    faces = Faces(3)
    assert [faces.next(pictures(seed, seed + 20, seed + 40), CLOSE) for seed in range(7)] == [
        [index % 3 == 0] * 3 for index in range(7)
    ]


def test_faces_between_have_the_last_output_and_a_face_that_was_away_starts_anew(tiny_model: Path) -> None:
    classifier, tracks = edgekit.load_model(tiny_model), np.array([Track(1)], np.object_)
    found = Detections(np.array([[0, 0, 40, 40]], np.float32), np.ones(1, np.float32), tracks=tracks)

    def at(time_s: float, colour_bgr: tuple[int, int, int]) -> Detections:
        frame = Frame(0, 0.0, 0.0, np.full((40, 40, 3), colour_bgr, np.uint8))
        return classify(frame, found, classifier, StageTimer(), time_s, 0.4, "auto").faces

    first, second, third = at(0.0, (0, 0, 200)), at(0.04, (0, 0, 201)), at(2.1, (0, 200, 0))
    assert [faces.classified.tolist() for faces in (first, second, third)] == [[True], [False], [True]]
    np.testing.assert_array_equal(second.raw_probabilities, first.raw_probabilities)
    np.testing.assert_array_equal(third.probabilities, third.raw_probabilities)


def counts(**options) -> tuple[int, int]:
    """Return the number of faces in the first 12 frames of the demo, and how many of them were classified."""
    faces = [
        face
        for result in edgekit.stream(source="demo", detector="haar", max_frames=12, **options)
        for face in result.faces
    ]
    return len(faces), sum(face.classified for face in faces)


def test_a_stream_classifies_by_need_by_default() -> None:
    found, classified = counts()
    assert (found, classified < 6) == (12, True)
    assert counts(classify_every=4) == (12, 3)
    assert counts(classify_every=1) == (12, 12)
    assert counts(smooth_s=0) == (12, 12)


def test_whole_images_of_a_video_are_classified_by_need(tiny_image_model: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "door.mp4", plain_frames(*[(0, 0, 250)] * 8, (0, 250, 0)), fps=25.0)
    faces = [face for result in edgekit.stream(source=video, model=tiny_image_model) for face in result.faces]
    assert [index for index, face in enumerate(faces) if face.classified] == [0, 8]
