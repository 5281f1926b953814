"""Creation of detectors by name, and the fallback when YuNet's file cannot be downloaded."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device import detection as detect
from edgekit.device.detection import create_detector, detect_faces
from edgekit.downloads import PinnedFile
from edgekit.errors import InputError

NOWHERE = PinnedFile("model.onnx", "http://127.0.0.1:9/model.onnx", "0" * 64, 1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("EDGEKIT_OFFLINE", "1")
    return tmp_path / "cache/edgekit"


def test_none_takes_the_whole_frame_as_one_face() -> None:
    found = create_detector("none", notify=pytest.fail).detect(np.zeros((48, 64, 3), np.uint8))
    assert (found.xyxy.tolist(), found.scores.tolist(), found.are_regions) == ([[0, 0, 64, 48]], [1], True)


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_network_haar_is_used_and_one_line_names_the_file(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path, offline: str
) -> None:
    monkeypatch.setattr(detect, "YUNET", NOWHERE)
    monkeypatch.setenv("EDGEKIT_OFFLINE", offline)
    lines: list[str] = []
    detector = create_detector("yunet", notify=lines.append)
    detector.detect(np.zeros((48, 64, 3), np.uint8))
    assert detector.name == "haar"
    (line,) = [text for text in lines if "Haar" in text]
    assert NOWHERE.url in line
    assert str(own_cache / NOWHERE.name) in line


def test_an_explicit_file_is_used_after_a_failed_download_and_never_falls_back(yunet: Path, own_cache: Path) -> None:
    own_cache.mkdir(parents=True)
    (own_cache / f"{detect.YUNET.name}.failed").write_text("no internet")
    assert create_detector(str(yunet), notify=pytest.fail).name == "yunet"
    with pytest.raises(InputError):
        create_detector(str(own_cache / "gone.onnx"), notify=pytest.fail)


@pytest.mark.parametrize(
    ("name", "settings"), [("hog", {}), ("haar", {"input_size_px": 31}), ("haar", {"score_threshold": 0.0})]
)
def test_bad_settings_are_refused(name: str, settings: dict) -> None:
    with pytest.raises(InputError):
        create_detector(name, notify=pytest.fail, **settings)


def test_faces_of_one_image(yunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_bgr = np.zeros((320, 320, 3), np.uint8)
    for x, y in ((0, 0), (64, 96), (288, 160)):
        image_bgr[y : y + 32, x : x + 32] = (255, 250, 245)
    found = detect_faces(image_bgr, detector=yunet, notify=pytest.fail)
    assert (found.landmarks_xy.shape, found.track_ids) == ((3, 5, 2), None)
    monkeypatch.setattr(detect, "create_detector", lambda *_, **__: pytest.fail("it was created again"))
    gray = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
    three_channels = detect_faces(cv2.merge([gray] * 3), detector=yunet, notify=pytest.fail)
    np.testing.assert_array_equal(detect_faces(gray, detector=yunet, notify=pytest.fail).xyxy, three_channels.xyxy)


def test_what_is_no_image_has_no_faces() -> None:
    with pytest.raises(InputError):
        detect_faces(np.zeros((8, 8)), detector="none")
