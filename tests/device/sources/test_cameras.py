"""Cameras: their choice, their settings, and the errors of missing ones. These tests need no camera."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit import boards
from edgekit.device.region import Region
from edgekit.device.sinks.clips import PacketTap
from edgekit.device.sinks.record import H264Recorder
from edgekit.device.sources import open_camera, opencv
from edgekit.device.sources.settings import CameraSettings, EncodedPacket, parse_control
from edgekit.errors import EXIT_TEMPORARY, InputError, SourceError
from tests.runs import run_of

RECORDING = H264Recorder(Path("door.mp4"), run_of(print))


class FakePicamera2:
    """Behaves like picamera2 0.3.38, according to its source and manual ("Configuring the camera", "Requests").

    The buffer of a request in format YUV420 contains luma, then u, then v, in rows of `stride` bytes; chroma rows are
    half as long. `SensorTimestamp` is in nanoseconds since boot. The constructor raises RuntimeError if `fault` is set
    or if a camera is open. After `close`, a camera can be opened again.
    """

    cameras: list[dict[str, object]] = [{"Model": "imx219", "Num": 0}]  # noqa: RUF012
    fault: Exception | None = None
    silent = False
    encoders: tuple = ()
    opened = 0
    released = 0
    configuration: dict
    format = "YUV420"
    padding = 32
    # A blue wall: B, G, R = 200, 30, 20 in full-range BT.601 (ITU-T T.871).
    yuv = (46, 215, 109)
    camera_controls = {"ExposureTime": (0, 1, 0), "FrameDurationLimits": (1, 2, 1)}  # noqa: RUF012
    sensor_modes = [  # noqa: RUF012
        {"format": "SRGGB10_CSI2P", "bit_depth": 10, "size": (640, 480), "fps": 103.33},
        {"format": "SRGGB10_CSI2P", "bit_depth": 10, "size": (1640, 1232), "fps": 41.85},
    ]

    @classmethod
    def global_camera_info(cls) -> list[dict[str, object]]:
        return cls.cameras

    def __init__(self, number: int = 0) -> None:
        if self.fault is not None:
            raise RuntimeError("Camera __init__ sequence did not complete.") from self.fault
        if self.opened:
            raise RuntimeError("Failed to acquire camera: Device or resource busy")
        type(self).opened += 1
        type(self).number = number

    def create_video_configuration(self, **configuration: object) -> dict:
        return configuration

    def configure(self, configuration: dict) -> None:
        for name in ("main", "lores"):
            stream = configuration[name]
            if stream is not None:
                stream["format"] = self.format
                stream["stride"] = stream["size"][0] + self.padding
        type(self).configuration = configuration

    def camera_configuration(self) -> dict:
        return self.configuration

    def start(self) -> None: ...

    def capture_request(self, wait: float | None = None) -> FakePicamera2:
        if self.silent:
            # Like `Future.result`, with which picamera2 waits: without limit, or until the timeout.
            threading.Event().wait(wait)
            raise TimeoutError
        return self

    def make_buffer(self, name: str) -> np.ndarray:
        stream = self.configuration[name]
        (width, height), stride = stream["size"], stream["stride"]
        rows = np.full((height * 3 // 2, stride), 7, np.uint8)  # 7: padding, which must not be read
        rows[:height, :width] = self.yuv[0]
        for place, value in enumerate(self.yuv[1:]):
            if self.format == "NV12":
                rows[height:, place:width:2] = value
            else:
                rows[height:].reshape(2, height // 2, stride // 2)[place, :, : width // 2] = value
        return rows.reshape(-1)

    def get_metadata(self) -> dict:
        return {"SensorTimestamp": time.clock_gettime_ns(time.CLOCK_BOOTTIME) - 50_000_000}

    def release(self) -> None:
        type(self).released += 1

    def close(self) -> None:
        type(self).opened -= 1


@pytest.fixture
def camera_class(monkeypatch: pytest.MonkeyPatch) -> type[FakePicamera2]:
    fresh = type("Picamera2", (FakePicamera2,), {})
    module = types.ModuleType("picamera2")
    module.Picamera2 = fresh
    monkeypatch.setitem(sys.modules, "picamera2", module)
    libcamera = types.ModuleType("libcamera")
    libcamera.Transform = lambda **flips: flips
    libcamera.ColorSpace = types.SimpleNamespace(Sycc=lambda: types.SimpleNamespace(range="Range.Full"))
    monkeypatch.setitem(sys.modules, "libcamera", libcamera)
    return fresh


@pytest.mark.parametrize("pixel_format", ["YUV420", "NV12"])
def test_the_pi_camera_gives_luma_as_it_comes_and_colours_in_order(camera_class, notices, pixel_format):
    camera_class.format = pixel_format
    with open_camera("picamera2", notices.append) as source:
        frame = next(iter(source))
        assert camera_class.opened == 1
        assert camera_class.configuration["buffer_count"] <= 3
    assert (frame.size_wh, frame.luma.shape, frame.small_luma.shape) == ((640, 480), (480, 640), (240, 320))
    assert np.unique(frame.luma).tolist() == np.unique(frame.small_luma).tolist() == [46]
    for picture_bgr in (frame.image_bgr, frame.small_bgr):
        np.testing.assert_allclose(np.unique(picture_bgr.reshape(-1, 3), axis=0), [[200, 30, 20]], atol=3)
    assert camera_class.opened == 0
    assert camera_class.released >= 1, "a request that is kept is a buffer less for the camera"


@pytest.mark.parametrize(
    ("size_wh", "wants", "small_wh"),
    [
        ((640, 480), {}, (320, 240)),
        ((640, 480), {"detects": False}, None),
        ((1280, 720), {"detector_px": 640}, (640, 360)),
        ((1280, 720), {"min_face_px": 60}, (640, 360)),
        ((1280, 720), {"detector_px": 320, "min_face_px": 60}, (320, 180)),
        # The detector gets only the region, from the small stream or from the main stream.
        ((1280, 720), {"region": Region(0, 0, 0.5, 0.5)}, (640, 360)),
        ((1280, 720), {"region": Region(320, 180, 320, 180)}, None),
        ((1280, 720), {"region": Region(0, 640, 640, 640), "rotation": 90}, (640, 360)),
    ],
)
def test_the_detectors_stream_is_as_large_as_the_detectors_picture(camera_class, notices, size_wh, wants, small_wh):
    with open_camera("picamera2", notices.append, CameraSettings(size_wh=size_wh, **wants)) as source:
        frame = next(iter(source))
        lores = camera_class.configuration["lores"]
    assert (lores and lores["size"]) == small_wh
    turned = slice(None, None, -1) if wants.get("rotation") else slice(None)
    assert frame.small_luma.shape[::-1][turned] == (small_wh or size_wh)


@pytest.mark.usefixtures("camera_class")
def test_the_capture_time_of_a_pi_cameras_frame_is_that_of_the_sensor(notices):
    with open_camera("picamera2", notices.append) as source:
        frame = next(iter(source))
    assert time.monotonic() - frame.monotonic_s >= 0.05
    assert abs((time.time() - time.monotonic()) - (frame.wall_s - frame.monotonic_s)) < 1


def test_a_pi_camera_gets_the_users_settings(camera_class, notices):
    camera_class.cameras = [{"Num": 0}, {"Num": 1}]
    settings = CameraSettings(
        size_wh=(1280, 720), fps=15, controls={"ExposureTime": 9000}, rotation=90, flip=("vertical",), sensor_mode=1,
    )  # fmt: skip
    with open_camera("picamera2:1", notices.append, settings) as source:
        frame = next(iter(source))
        assert (source.name, source.fps) == ("camera 'picamera2:1'", 15)
    wanted = camera_class.configuration
    assert camera_class.number == 1
    assert (wanted["main"]["size"], wanted["lores"]["size"]) == ((1280, 720), (320, 180))
    assert wanted["controls"] == {"FrameRate": 15, "ExposureTime": 9000}
    assert wanted["transform"] == {"hflip": False, "vflip": True}
    assert wanted["sensor"] == {"output_size": (1640, 1232), "bit_depth": 10}
    assert wanted["buffer_count"] == 3
    assert (frame.size_wh, frame.image_bgr.shape, frame.small_luma.shape) == ((720, 1280), (1280, 720, 3), (320, 180))


def test_controls_keep_the_type_of_number_that_libcamera_needs():
    texts = ["FrameDurationLimits=33333,66666", "ColourGains=1.5,2", "AwbEnable=false", "ExposureTime=9000", "Mode=x,y"]
    controls = dict(map(parse_control, texts))
    assert controls == {
        "FrameDurationLimits": (33333, 66666), "ColourGains": (1.5, 2.0), "AwbEnable": False, "ExposureTime": 9000,
        "Mode": "x,y",
    }  # fmt: skip
    assert [type(value) for value in controls["FrameDurationLimits"]] == [int, int]


@pytest.mark.parametrize(
    ("which", "settings", "error"),
    [
        ("picamera2", {"controls": {"Exposure": 1}}, InputError),
        ("picamera2", {"sensor_mode": 2}, InputError),
        ("picamera2", {"region": Region(600, 0, 100, 100)}, InputError),
        ("picamera2:3", {}, SourceError),
        ("/dev/null", {"controls": {"Gain": 1}}, InputError),
        ("/dev/null", {"recording": RECORDING}, InputError),
        *((which, {}, SourceError) for which in ("/dev/null", "/dev/video987")),
    ],
)
def test_what_a_camera_cannot_do_is_refused_and_the_camera_closed(camera_class, notices, which, settings, error):
    with pytest.raises(error):
        open_camera(which, notices.append, CameraSettings(**settings))
    assert camera_class.opened == 0


class Recording:
    """Receives packets like a recorder."""

    def __init__(self, camera_class) -> None:
        self._camera_class = camera_class
        self.received: list[object] = []
        self.open_at_stop: list[int] = []

    def start(self, size_wh: tuple[int, int]) -> None:
        self.received.append(size_wh)

    def put(self, packet: EncodedPacket) -> None:
        self.received.append(packet)

    def stop(self) -> None:
        self.received.append("stopped")
        self.open_at_stop.append(self._camera_class.opened)


@pytest.mark.parametrize("has_hardware", [True, False])
def test_the_encoder_of_a_pi_camera_feeds_the_recording(camera_class, notices, monkeypatch, has_hardware):
    class Encoder:
        def __init__(self, *, iperiod: int) -> None:
            assert iperiod == 30, "a key frame per second"

    hardware, software = type("H264Encoder", (Encoder,), {}), type("LibavH264Encoder", (Encoder,), {})
    encoders, outputs = types.ModuleType("picamera2.encoders"), types.ModuleType("picamera2.outputs")
    encoders.H264Encoder, encoders.LibavH264Encoder, outputs.Output = hardware, software, object
    monkeypatch.setitem(sys.modules, "picamera2.encoders", encoders)
    monkeypatch.setitem(sys.modules, "picamera2.outputs", outputs)

    def start_encoder(_, encoder, output, name: str) -> None:
        assert name == "main"
        if isinstance(encoder, hardware) and not has_hardware:
            raise OSError(errno.ENOENT, "No such file or directory")
        output.outputframe(b"coded", True, 40_000)

    monkeypatch.setattr(camera_class, "start_encoder", start_encoder, raising=False)
    recording = Recording(camera_class)
    with open_camera("picamera2", notices.append, CameraSettings(recording=PacketTap(recording))):
        assert camera_class.configuration["buffer_count"] > 3, "the encoder holds some"
    assert recording.received == [(640, 480), EncodedPacket(b"coded", True, 40_000), "stopped"]
    assert recording.open_at_stop == [1], "another thread may open a closed camera, and start the recording again"
    assert [line for line in notices if "encoding in software" in line] == notices
    assert len(notices) == (0 if has_hardware else 1)


@pytest.mark.parametrize(
    "faults",
    [
        {"cameras": []},
        {"fault": RuntimeError("Device or resource busy")},
    ],
)
def test_a_pi_camera_that_cannot_be_used_is_an_absent_source(camera_class, notices, monkeypatch, faults):
    for name, value in faults.items():
        monkeypatch.setattr(camera_class, name, value)
    with pytest.raises(SourceError):
        open_camera("picamera2", notices.append)
    assert camera_class.opened == 0


@pytest.mark.parametrize("code", [None, "raise ValueError('numpy.dtype size changed')"])
def test_a_picamera2_that_is_missing_or_built_for_another_numpy_is_an_absent_source(
    monkeypatch, notices, tmp_path, code
):
    monkeypatch.delitem(sys.modules, "picamera2", raising=False)
    if code is None:
        monkeypatch.setitem(sys.modules, "picamera2", None)
    else:
        (tmp_path / "picamera2.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SourceError):
        open_camera("picamera2", notices.append)


def test_a_pi_camera_in_use_is_one_line_whatever_picamera2_logs(tmp_path, tiny_model):
    (tmp_path / "libcamera.py").touch()
    (tmp_path / "picamera2.py").write_text("""
import logging

class Picamera2:
    @staticmethod
    def global_camera_info():
        return [{"Num": 0}]

    def __init__(self, number):
        logging.getLogger("picamera2.picamera2").error("Camera __init__ sequence did not complete.")
        raise RuntimeError("Failed to acquire camera: Device or resource busy")
""")
    command = [sys.executable, "-m", "edgekit.cli", "run", "--camera", "picamera2", "--model", tiny_model]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert (done.returncode, done.stderr.count("\n")) == (EXIT_TEMPORARY, 1), done.stderr
    assert "Device or resource busy" in done.stderr


def test_auto_takes_the_ribbon_camera_first_on_a_pi_and_names_what_it_tried(camera_class, notices, monkeypatch):
    a_pi, a_pc = (replace(boards.read_board(), model=model) for model in ("Raspberry Pi 5 Model B", "a PC"))
    monkeypatch.setattr(boards, "read_board", lambda: a_pi)
    with open_camera("auto", notices.append) as source:
        assert "picamera2" in source.name
    assert camera_class.opened == 0
    camera_class.cameras = []
    monkeypatch.setattr(opencv, "v4l2_cameras", lambda *_, **__: [Path("/dev/video970"), Path("/dev/video971")])
    with pytest.raises(SourceError, match=r"picamera2.*/dev/video970.*/dev/video971"):
        open_camera("auto", notices.append)
    monkeypatch.setattr(boards, "read_board", lambda: a_pc)
    with pytest.raises(SourceError, match="/dev/video971") as raised:
        open_camera("auto", notices.append)
    assert "picamera2" not in str(raised.value)
