"""Discovery of cameras and their modes, and obstacles to their use."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.boards import read_board
from edgekit.cli import run as run_command_line
from edgekit.device.sources import opencv as camera_discovery
from edgekit.device.sources.opencv import list_cameras, v4l2_cameras
from edgekit.errors import EXIT_OK, SourceError


def add_node(root: Path, number: int, bus: str, index: int = 0) -> None:
    """Add a video node to the file system of a machine; the images of a camera come from the node with index 0."""
    node = root / f"sys/class/video4linux/video{number}"
    for folder in (node / "device", root / "sys/bus" / bus, root / "dev"):
        folder.mkdir(parents=True, exist_ok=True)
    (node / "index").write_text(f"{index}\n")
    (node / "name").write_text("HD \x1b[Webcam\n")
    (node / "device/subsystem").symlink_to(root / "sys/bus" / bus)
    (root / f"dev/video{number}").touch(0o600)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The file system of a machine with two USB cameras."""
    for number in (0, 2):
        add_node(tmp_path, number, "usb")
    return tmp_path


def nobody() -> list:
    raise SourceError("camera 'picamera2' needs a module that is not there: sudo apt install python3-picamera2")


def test_usb_cameras_are_listed_by_name_and_one_that_may_not_be_used_is_blocked(machine):
    (machine / "dev/video2").unlink()
    found = list_cameras(machine, nobody)
    assert [(camera.name, camera.model) for camera in found.cameras] == [
        ("/dev/video0", "HD \\x1b[Webcam"),
        ("/dev/video2", "HD \\x1b[Webcam"),
    ]
    assert [camera.blocked is None for camera in found.cameras] == [True, False]
    assert found.obstacles == (), "nobody misses picamera2 on a PC"


def test_usb_cameras_come_first_and_codecs_and_metadata_nodes_are_left_out(tmp_path):
    for number, bus, index in ((0, "platform", 0), (10, "usb", 0), (2, "usb", 0), (3, "usb", 1)):
        add_node(tmp_path, number, bus, index)
    every_node = [path.name for path in v4l2_cameras(usb_only=False, root=tmp_path)]
    assert every_node == ["video2", "video10", "video0"]
    assert [path.name for path in v4l2_cameras(usb_only=True, root=tmp_path)] == ["video2", "video10"]


def test_a_pi_misses_picamera2(machine):
    board = replace(read_board(machine), model="Raspberry Pi 3 Model B Plus Rev 1.3")
    found = list_cameras(machine, nobody, board)
    assert ["python3-picamera2" in obstacle for obstacle in found.obstacles] == [True]


def test_ribbon_cameras_have_numbers_and_a_busy_one_its_reason(tmp_path):
    modes = [{"size_wh": [640, 480], "fps": 103.33, "bit_depth": 10, "format": "SRGGB10_CSI2P"}]
    ribbon = [{"Num": 0, "Model": "imx219", "modes": modes}, {"Num": 1, "Model": "imx708", "error": "Device is busy"}]
    first, second = list_cameras(tmp_path, lambda: ribbon).cameras
    assert (first.name, first.modes, first.blocked) == ("picamera2", ({"sensor_mode": 0, **modes[0]},), None)
    assert (second.name, second.blocked) == ("picamera2:1", "Device is busy: stop the program that uses it")


def test_the_command_lists_them(monkeypatch, capsys):
    modes = ({"sensor_mode": 0, "size_wh": [640, 480], "fps": 103.33, "bit_depth": 10, "format": "SRGGB10"},)
    found = camera_discovery.DiscoveredCameras(
        (
            camera_discovery.Camera("picamera2", "picamera2", "imx219", modes, None),
            camera_discovery.Camera("/dev/video2", "v4l2", "HD Webcam", (), "permission denied"),
        ),
        ("something",),
    )
    monkeypatch.setattr(camera_discovery, "list_cameras", lambda: found)
    assert run_command_line(["cameras"]) == EXIT_OK
    text = capsys.readouterr().out
    assert all(part in text for part in ("imx219", "103.33", "/dev/video2", "permission denied", "something"))
    assert run_command_line(["cameras", "--json"]) == EXIT_OK
    document = json.loads(capsys.readouterr().out)
    assert [camera["name"] for camera in document["cameras"]] == ["picamera2", "/dev/video2"]
