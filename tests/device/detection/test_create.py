"""Creation of detectors by name, and the fallback when YuNet's file cannot be downloaded."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device import detection as detect
from edgekit.device.detection import create_detector, detect_faces
from edgekit.downloads import PinnedFile
from edgekit.errors import InputError, StorageError

NOWHERE = PinnedFile("model.onnx", "http://127.0.0.1:9/model.onnx", "0" * 64, 1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("EDGEKIT_OFFLINE", "1")
    return tmp_path / "cache/edgekit"


def fail(text: str) -> None:
    raise AssertionError(text)


def test_none_takes_the_whole_frame_as_one_face() -> None:
    found = create_detector("none", notify=fail).detect(np.zeros((48, 64, 3), np.uint8))
    assert (found.xyxy.tolist(), found.scores.tolist(), found.are_regions) == ([[0, 0, 64, 48]], [1], True)


def test_a_pinned_file_comes_from_the_cache_and_another_file_is_an_error(
    yunet: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = yunet.read_bytes()
    pinned = replace(NOWHERE, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    monkeypatch.setattr(detect, "YUNET", pinned)
    own_cache.mkdir(parents=True)
    (own_cache / NOWHERE.name).write_bytes(content)
    assert create_detector("yunet", notify=fail).name == "yunet"

    def wrong_file(*_: object, **__: object) -> Path:
        raise StorageError("wrong SHA-256")

    monkeypatch.setattr(detect, "cached_download", wrong_file)
    with pytest.raises(StorageError):
        create_detector("yunet", notify=fail)


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
    assert create_detector(str(yunet), notify=fail).name == "yunet"
    with pytest.raises(InputError):
        create_detector(str(own_cache / "gone.onnx"), notify=fail)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("hog", {}),
        *(("haar", {"input_size_px": size_px}) for size_px in (31, 4097)),
        *(("haar", {"score_threshold": threshold}) for threshold in (0.0, float("nan"))),
    ],
)
def test_bad_settings_are_refused(name: str, settings: dict) -> None:
    with pytest.raises(InputError):
        create_detector(name, notify=fail, **settings)


def test_one_detector_does_not_load_another() -> None:
    code = """
import sys
from edgekit.device.detection import create_detector
def loaded():
    names = ["cv2", "edgekit.device.detection.haar", "edgekit.device.detection.yunet", "onnxruntime"]
    return sum(name in sys.modules for name in names)
create_detector("none", notify=print)
print(loaded())
create_detector("haar", notify=print)
print(loaded())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["0", "2"]


def test_faces_of_one_image(yunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_bgr = np.zeros((320, 320, 3), np.uint8)
    for x, y in ((0, 0), (64, 96), (288, 160)):
        image_bgr[y : y + 32, x : x + 32] = (255, 250, 245)
    found = detect_faces(image_bgr, detector=yunet, notify=fail)
    assert (found.landmarks_xy.shape, found.track_ids) == ((3, 5, 2), None)
    monkeypatch.setattr(detect, "create_detector", lambda *_, **__: pytest.fail("it was created again"))
    gray = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
    three_channels = detect_faces(cv2.merge([gray] * 3), detector=yunet, notify=fail)
    np.testing.assert_array_equal(detect_faces(gray, detector=yunet, notify=fail).xyxy, three_channels.xyxy)


def test_what_is_no_image_has_no_faces() -> None:
    with pytest.raises(InputError):
        detect_faces(np.zeros((8, 8)), detector="none")


def test_a_warning_names_the_line_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "YUNET", NOWHERE)
    with pytest.warns(UserWarning, match="Haar") as caught:
        detect_faces(np.zeros((48, 64, 3), np.uint8), input_size_px=64)
    assert {warning.filename for warning in caught} == {__file__}
