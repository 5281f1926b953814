"""The Haar cascade detector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device.detection import haar
from edgekit.device.detection.haar import Haar
from edgekit.device.imaging import read_image
from edgekit.errors import InputError
from edgekit.model_store import asset
from tests.device.videos import video_frames


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    # Several OpenCV threads wait for each other, which is slow on a busy machine.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return read_image(asset("astronaut.png"))


def test_finds_the_one_face_of_the_portrait(portrait: np.ndarray) -> None:
    found = Haar(320, 0.7).detect(portrait)
    assert len(found) == 1
    x0, y0, x1, y1 = found.xyxy[0] / portrait.shape[0]
    assert 0.35 < (x0 + x1) / 2 < 0.5
    assert 0.15 < (y0 + y1) / 2 < 0.3
    assert found.xyxy.dtype == found.scores.dtype == np.float32
    assert found.landmarks_xy is None


@pytest.mark.slow
def test_finds_the_one_face_of_a_clip_in_nearly_every_frame_and_none_in_pictures_without(shared: Path) -> None:
    for name in ("chelsea.png", "coffee.png"):
        assert len(Haar(320, 0.7).detect(cv2.imread(str(shared / "data/media" / name)))) == 0
    frames = video_frames(shared / "data/media/fer_test.mp4")
    detector = Haar(320, 0.7)
    assert np.mean([len(detector.detect(frame)) == 1 for frame in frames[::3]]) >= 0.92


def test_detects_in_an_image_of_limited_size(portrait: np.ndarray) -> None:
    small = Haar(320, 0.7).detect(portrait).xyxy
    large = Haar(320, 0.7).detect(cv2.resize(portrait, None, fx=3, fy=3)).xyxy
    np.testing.assert_allclose(large / 3, small, atol=12)


def test_scores_grow_with_the_windows_that_agree_and_the_threshold_cuts_them(portrait: np.ndarray) -> None:
    (score,) = Haar(320, 0.7).detect(portrait).scores
    assert 0.8 <= score < 1
    assert len(Haar(320, float(score) + 0.001).detect(portrait)) == 0
    assert len(Haar(320, float(score) - 0.001).detect(portrait)) == 1


def test_two_faces_come_the_surest_first(portrait: np.ndarray) -> None:
    blurred = cv2.GaussianBlur(portrait, (0, 0), 4)
    found = Haar(640, 0.5).detect(np.hstack([blurred, portrait]))
    assert len(found) == 2
    assert found.scores[0] >= found.scores[1]


def test_the_files_of_a_linux_distribution_serve_too(portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    cascades = cv2.data.haarcascades
    monkeypatch.delattr(cv2, "data")
    monkeypatch.setattr(haar, "SYSTEM_FOLDERS", ())
    with pytest.raises(InputError):
        Haar(320, 0.7)
    monkeypatch.setattr(haar, "SYSTEM_FOLDERS", (cascades,))
    assert len(Haar(320, 0.7).detect(portrait)) == 1
