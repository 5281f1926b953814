"""Cameras: which one is chosen, and what is said when it is not there. No camera is needed."""

from __future__ import annotations

import builtins
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from edgekit.device import sources
from edgekit.device.sources import open_camera, opencv, picamera
from edgekit.errors import InputError, SourceError


class FakePicamera2:
    """Replays what the Picamera2 manual (chapters "Configuring the camera", "Capturing images") says and its users see.

    A main stream of format "RGB888" is an array (H, W, 3) with blue first; without a camera the class raises
    IndexError, with one that is in use RuntimeError; after `close` it can be opened again.
    """

    cameras: list[dict[str, str]] = [{"Model": "imx219"}]  # noqa: RUF012
    fault: Exception | None = None
    opened = 0
    configuration: dict

    @classmethod
    def global_camera_info(cls) -> list[dict[str, str]]:
        return cls.cameras

    def __init__(self) -> None:
        if self.fault is not None:
            raise self.fault
        type(self).opened += 1

    def create_video_configuration(self, **configuration: object) -> dict:
        return configuration

    def configure(self, configuration: dict) -> None:
        type(self).configuration = configuration

    def start(self) -> None: ...

    def capture_array(self, name: str) -> np.ndarray:
        assert name == "main"
        width, height = self.configuration["main"]["size"]
        picture = np.zeros((height, width, 3), np.uint8)
        picture[:, :, 0] = 200  # a blue wall
        return picture

    def close(self) -> None:
        type(self).opened -= 1


@pytest.fixture
def camera_class(monkeypatch: pytest.MonkeyPatch) -> type[FakePicamera2]:
    fresh = type("Picamera2", (FakePicamera2,), {})
    module = types.ModuleType("picamera2")
    module.Picamera2 = fresh
    monkeypatch.setitem(sys.modules, "picamera2", module)
    return fresh


@pytest.fixture
def on_a_pi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_is_raspberry_pi", lambda: True)


def test_the_pi_camera_gives_blue_green_red_with_few_buffers_and_is_closed(camera_class, told):
    with open_camera("picamera2", told.append) as source:
        frame = next(iter(source))
        assert camera_class.opened == 1
        assert camera_class.configuration["main"]["format"] == "RGB888"
        assert camera_class.configuration["buffer_count"] <= 3
    assert frame.image_bgr.shape == (480, 640, 3)
    assert frame.image_bgr[0, 0].tolist() == [200, 0, 0]
    assert camera_class.opened == 0


def test_a_pi_camera_that_gives_another_format_is_refused():
    with pytest.raises(SourceError, match=r"shape \(720, 640\) instead of RGB888"):
        picamera.to_bgr(np.zeros((720, 640), np.uint8))


@pytest.mark.parametrize(
    ("cameras", "fault", "reason"),
    [
        ([], None, "no camera found: check the ribbon cable"),
        ([{}], RuntimeError("Camera __init__ sequence did not complete."), "stop the program that uses it"),
        ([{}], IndexError("list index out of range"), "cannot be opened"),
    ],
)
def test_a_pi_camera_that_cannot_be_used_says_why(camera_class, told, cameras, fault, reason):
    camera_class.cameras, camera_class.fault = cameras, fault
    with pytest.raises(SourceError, match=reason):
        open_camera("picamera2", told.append)


def test_without_picamera2_the_cure_is_named(monkeypatch, told):
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(SourceError, match=r"apt install python3-picamera2.*--system-site-packages"):
        open_camera("picamera2", told.append)


def test_a_picamera2_built_for_another_numpy_says_so(monkeypatch, told):
    def broken_import(name: str, *args: object) -> object:
        if name == "picamera2":
            raise ValueError("numpy.dtype size changed, may indicate binary incompatibility")
        return real_import(name, *args)

    real_import = builtins.__import__
    monkeypatch.delitem(sys.modules, "picamera2", raising=False)
    monkeypatch.setattr(builtins, "__import__", broken_import)
    with pytest.raises(SourceError, match=r"does not load \(numpy.dtype size changed.*system's numpy"):
        open_camera("picamera2", told.append)


@pytest.mark.usefixtures("on_a_pi")
def test_auto_takes_the_ribbon_camera_first_on_a_pi(camera_class, told):
    with open_camera("auto", told.append) as source:
        assert "picamera2" in source.name
    assert camera_class.opened == 0


@pytest.mark.usefixtures("on_a_pi")
def test_auto_without_any_camera_on_a_pi_names_both_roads(camera_class, told, monkeypatch):
    camera_class.cameras = []
    monkeypatch.setattr(opencv, "v4l2_cameras", lambda *_, **__: [])
    with pytest.raises(SourceError, match=r"picamera2.*no camera found.*no USB camera is plugged in"):
        open_camera("auto", told.append)


def test_auto_elsewhere_tries_v4l2_and_says_what_it_tried(told, monkeypatch):
    monkeypatch.setattr(sources, "_is_raspberry_pi", lambda: False)
    monkeypatch.setattr(opencv, "v4l2_cameras", lambda *_, **__: [Path("/dev/video970"), Path("/dev/video971")])
    with pytest.raises(SourceError, match=r"/dev/video970.*does not exist.*/dev/video971.*does not exist"):
        open_camera("auto", told.append)


@pytest.mark.parametrize("which", ["987", "/dev/video987"])
def test_a_camera_that_is_not_there_is_an_absent_source(told, which):
    with pytest.raises(SourceError, match="camera '/dev/video987' does not exist"):
        open_camera(which, told.append)


def test_a_node_that_is_no_camera_is_an_absent_source(told):
    with pytest.raises(SourceError, match="camera '/dev/null' cannot be opened"):
        open_camera("/dev/null", told.append)


@pytest.mark.parametrize("which", ["front", "", "-1", "video0"])
def test_a_camera_of_no_known_kind_is_refused(told, which):
    with pytest.raises(InputError, match="is not one of: auto, picamera2, usb"):
        open_camera(which, told.append)


def test_usb_cameras_come_first_and_codecs_and_metadata_nodes_are_left_out(tmp_path):
    for bus in ("usb", "platform"):
        (tmp_path / "sys/bus" / bus).mkdir(parents=True)
    for number, bus, index in ((0, "platform", "0"), (10, "usb", "0"), (2, "usb", "0"), (3, "usb", "1")):
        node = tmp_path / f"sys/class/video4linux/video{number}"
        (node / "device").mkdir(parents=True)
        (node / "index").write_text(f"{index}\n")
        (node / "device/subsystem").symlink_to(tmp_path / "sys/bus" / bus)
    everything = [str(path) for path in opencv.v4l2_cameras(usb_only=False, root=tmp_path)]
    assert everything == ["/dev/video2", "/dev/video10", "/dev/video0"]
    assert [path.name for path in opencv.v4l2_cameras(usb_only=True, root=tmp_path)] == ["video2", "video10"]
