"""Discovery of cameras and their modes, and obstacles to their use."""

from __future__ import annotations

import errno
import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.boards import read_board
from edgekit.cli import _run
from edgekit.device.sources import camera_discovery
from edgekit.device.sources.camera_discovery import list_cameras
from edgekit.device.sources.v4l2 import Mode, Node, query_node, read_node
from edgekit.errors import EXIT_OK, SourceError

WEBCAM = Node("HD Webcam", True, (Mode("MJPG", (1280, 720), (30.0, 15.0)), Mode("YUYV", (640, 480), ())))


class Driver:
    """Responds like the kernel's uvcvideo: structures of linux/videodev2.h, EINVAL after the last entry of a list."""

    formats = (b"MJPG", b"YUYV")
    sizes = ((1280, 720), (640, 480))

    def __init__(self, capabilities: int = 0x84A00001, device_caps: int = 0x04200001) -> None:
        self._capabilities, self._device_caps = capabilities, device_caps

    def __call__(self, handle: int, request: int, answer: bytearray) -> int:
        assert handle == 5
        direction, size, kind, number = request >> 30, request >> 16 & 0x3FFF, request >> 8 & 0xFF, request & 0xFF
        assert (kind, size) == (ord("V"), len(answer))
        (index,) = struct.unpack_from("<I", answer)
        if number == 0:
            assert (direction, size) == (2, 104)
            struct.pack_into("<16s32s32sIII", answer, 0, b"uvcvideo", b"HD \x1b[Webcam", b"usb-1", 395264,
                             self._capabilities, self._device_caps)  # fmt: skip
            return 0
        assert direction == 3
        if number == 2 and index < len(self.formats):
            assert size == 64
            struct.pack_into("<32s4s", answer, 12, b"description", self.formats[index])
        elif number == 74 and index < len(self.sizes):
            assert size == 44
            struct.pack_into("<III", answer, 8, 1, *self.sizes[index])
        elif number == 75 and index < 2:
            assert size == 52
            struct.pack_into("<III", answer, 16, 1, 1, (30, 15)[index])
        else:
            raise OSError(errno.EINVAL, "Invalid argument")
        return 0


def test_the_modes_of_a_node_are_read_as_the_kernel_lists_them():
    node = read_node(5, Driver())
    assert (node.card, node.captures) == ("HD ?[Webcam", True)
    assert [(mode.pixel_format, mode.size_wh, mode.fps) for mode in node.modes] == [
        (name, size_wh, (30.0, 15.0)) for name in ("MJPG", "YUYV") for size_wh in Driver.sizes
    ]


def test_a_node_for_metadata_is_no_camera():
    assert not read_node(5, Driver(device_caps=0x04A00000)).captures


def test_a_device_that_is_not_v4l2_is_reported():
    with pytest.raises(OSError, match="ioctl"):
        query_node(Path("/dev/null"))


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The file system of a machine with the nodes of two USB cameras."""
    (tmp_path / "sys/bus/usb").mkdir(parents=True)
    for number in (0, 2):
        node = tmp_path / f"sys/class/video4linux/video{number}"
        (node / "device").mkdir(parents=True)
        (node / "index").write_text("0\n")
        (node / "device/subsystem").symlink_to(tmp_path / "sys/bus/usb")
    return tmp_path


def nobody() -> list:
    raise SourceError("camera 'picamera2' needs a module that is not there: sudo apt install python3-picamera2")


def test_cameras_and_their_modes(machine):
    found = list_cameras(machine, lambda _: WEBCAM, nobody)
    assert [(camera.name, camera.model, camera.blocked) for camera in found.cameras] == [
        ("/dev/video0", "HD Webcam", None),
        ("/dev/video2", "HD Webcam", None),
    ]
    assert found.cameras[0].modes[0] == {"format": "MJPG", "size_wh": [1280, 720], "fps": [30.0, 15.0]}
    assert found.obstacles == (), "nobody misses picamera2 on a PC"


def test_a_node_that_may_not_be_used_and_one_that_is_no_camera(machine):
    def query(path: Path) -> Node:
        if path.name == "video0":
            raise PermissionError(errno.EACCES, "Permission denied")
        return replace(WEBCAM, captures=False)

    (camera,) = list_cameras(machine, query, nobody).cameras
    assert camera.blocked == "permission denied: add your user to the group 'video'"


def test_a_pi_misses_picamera2_and_a_32_bit_system_is_in_the_way(machine):
    board = replace(read_board(machine), model="Raspberry Pi 3 Model B Plus Rev 1.3", userland_bits=32)
    found = list_cameras(machine, lambda _: WEBCAM, nobody, board)
    assert ["32-bit" in found.obstacles[0], "python3-picamera2" in found.obstacles[1]] == [True, True]


def test_ribbon_cameras_have_numbers_and_a_busy_one_its_reason(tmp_path):
    modes = [{"size_wh": [640, 480], "fps": 103.33, "bit_depth": 10, "format": "SRGGB10_CSI2P"}]
    ribbon = [{"Num": 0, "Model": "imx219", "modes": modes}, {"Num": 1, "Model": "imx708", "error": "Device is busy"}]
    first, second = list_cameras(tmp_path, query_node, lambda: ribbon).cameras
    assert (first.name, first.modes, first.blocked) == ("picamera2", ({"sensor_mode": 0, **modes[0]},), None)
    assert (second.name, second.blocked) == ("picamera2:1", "Device is busy: stop the program that uses it")


def test_the_command_lists_them(monkeypatch, capsys):
    modes = ({"sensor_mode": 0, "size_wh": [640, 480], "fps": 103.33, "bit_depth": 10, "format": "SRGGB10"},)
    usb = ({"format": "MJPG", "size_wh": [1280, 720], "fps": [30.0, 15.0]},)
    found = camera_discovery.DiscoveredCameras(
        (
            camera_discovery.Camera("picamera2", "picamera2", "imx219", modes, None),
            camera_discovery.Camera("/dev/video2", "v4l2", "HD Webcam", usb, "permission denied"),
        ),
        ("something",),
    )
    monkeypatch.setattr(camera_discovery, "list_cameras", lambda: found)
    assert _run(["cameras"]) == EXIT_OK
    text = capsys.readouterr().out
    for line in (
        "picamera2  imx219",
        "  mode 0: SRGGB10 640x480  103.33 fps",
        "/dev/video2  HD Webcam  BLOCKED: permission denied",
        "  MJPG 1280x720  30, 15 fps",
        "obstacle: something",
    ):
        assert line in text.splitlines()
    assert _run(["cameras", "--json"]) == EXIT_OK
    document = json.loads(capsys.readouterr().out)
    assert [camera["name"] for camera in document["cameras"]] == ["picamera2", "/dev/video2"]


def test_here_the_command_ends_well_whatever_there_is(capsys):
    assert _run(["cameras", "--json"]) == EXIT_OK
    assert set(json.loads(capsys.readouterr().out)) == {"cameras", "obstacles"}
