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
    np.testing.assert_array_equal(found.xyxy, [[0, 0, 64, 48]])
    np.testing.assert_array_equal(found.scores, [1])
    assert (len(found), found.are_regions) == (1, True)


def test_haar_by_name() -> None:
    assert create_detector("haar", notify=fail).name == "haar"


def test_a_detector_of_another_package_may_round_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rounding(detect.WholeFrame):
        input_size_px = 320

    monkeypatch.setattr(detect.registry, "find", lambda *_: lambda _: Rounding())
    assert isinstance(create_detector("rounding", input_size_px=300, notify=fail), Rounding)


def test_yunet_from_the_cache(yunet: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = yunet.read_bytes()
    monkeypatch.setattr(
        detect, "YUNET", replace(NOWHERE, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    )
    own_cache.mkdir(parents=True)
    (own_cache / NOWHERE.name).write_bytes(content)
    assert create_detector("yunet", notify=fail).name == "yunet"


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_network_haar_is_used_and_a_warning_is_printed_once(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path, offline: str
) -> None:
    monkeypatch.setattr(detect, "YUNET", NOWHERE)
    monkeypatch.setenv("EDGEKIT_OFFLINE", offline)
    lines: list[str] = []
    detector = create_detector("yunet", notify=lines.append)
    assert detector.name == "haar"
    (line,) = [text for text in lines if "Haar" in text]
    assert "--detector FILE" in line
    assert f"{NOWHERE.url} to '{own_cache / NOWHERE.name}'" in line
    assert "\n" not in line
    detector.detect(np.zeros((48, 64, 3), np.uint8))
    assert len([text for text in lines if "Haar" in text]) == 1


def test_an_explicit_file_is_used_after_a_failed_download(yunet: Path, own_cache: Path) -> None:
    own_cache.mkdir(parents=True)
    (own_cache / f"{detect.YUNET.name}.failed").write_text("no internet")
    assert create_detector("yunet", model_path=yunet, notify=fail).name == "yunet"


def test_an_explicit_file_never_falls_back(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        create_detector("yunet", model_path=tmp_path / "gone.onnx", notify=fail)


def test_another_file_than_the_pinned_one_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_file(pinned: PinnedFile, *, notify: object) -> Path:
        del pinned, notify
        raise StorageError("wrong SHA-256")

    monkeypatch.setattr(detect, "cached_download", wrong_file)
    with pytest.raises(StorageError, match="wrong SHA-256"):
        create_detector("yunet", notify=fail)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("hog", {}, "'hog' does not exist: use one of yunet, haar, none"),
        ("haar", {"model_path": Path("x.onnx")}, "'haar' takes no model file"),
        ("none", {"model_path": Path("x.onnx")}, "'none' takes no model file"),
        ("none", {"input_size_px": 320}, "'none' takes no input size"),
        ("haar", {"input_size_px": 31}, "31 px is out of range: give 32 to 4096"),
        ("haar", {"input_size_px": 100_000}, "100000 px is out of range"),
        ("haar", {"score_threshold": 0.0}, "threshold 0.0"),
        ("haar", {"score_threshold": float("nan")}, "threshold nan"),
    ],
)
def test_bad_settings_are_refused(name: str, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_detector(name, notify=fail, **settings)


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("haar", ["onnxruntime", "edgekit.device.detection.yunet"]),
        ("none", ["onnxruntime", "cv2", "edgekit.device.detection.yunet", "edgekit.device.detection.haar"]),
    ],
)
def test_one_detector_does_not_load_another(name: str, absent: list[str]) -> None:
    code = (
        "import sys; from edgekit.device.detection import create_detector; "
        f"create_detector({name!r}, notify=print); print([name for name in {absent!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_faces_of_one_image(yunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_bgr = np.zeros((320, 320, 3), np.uint8)
    for x, y in ((0, 0), (64, 96), (288, 160)):
        image_bgr[y : y + 32, x : x + 32] = (255, 250, 245)
    found = detect_faces(image_bgr, detector_model=yunet, notify=fail)
    assert len(found) == 3
    assert found.landmarks_xy.shape == (3, 5, 2)
    assert found.track_ids is None
    monkeypatch.setattr(detect, "create_detector", lambda *_, **__: pytest.fail("it was created again"))
    np.testing.assert_array_equal(detect_faces(image_bgr, detector_model=yunet, notify=fail).xyxy, found.xyxy)
    gray = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
    three_channels = detect_faces(cv2.merge([gray] * 3), detector_model=yunet, notify=fail)
    np.testing.assert_array_equal(detect_faces(gray, detector_model=yunet, notify=fail).xyxy, three_channels.xyxy)


def test_what_is_no_image_has_no_faces() -> None:
    with pytest.raises(InputError, match=r"float64 \(8, 8\): pass a uint8 array"):
        detect_faces(np.zeros((8, 8)), detector="none")


def test_a_warning_names_the_line_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "YUNET", NOWHERE)
    with pytest.warns(UserWarning, match="Haar") as caught:
        detect_faces(np.zeros((48, 64, 3), np.uint8), input_size_px=64)
    assert {warning.filename for warning in caught} == {__file__}
