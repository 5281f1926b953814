"""Camera discovery: the cameras of this machine, their modes, and what prevents their use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.boards import Board, read_board
from edgekit.device.sources.opencv import v4l2_cameras
from edgekit.device.sources.v4l2 import Node, query_node
from edgekit.errors import SourceError


@dataclass(frozen=True)
class Camera:
    """One camera.

    Attributes:
        name: The value for `--camera`.
        kind: "picamera2" or "v4l2".
        model: The name that the driver reports.
        modes: Sizes and frame rates, ready for JSON; the fields depend on `kind`.
        blocked: Why the camera cannot be opened now, and the cure; None if no reason is known. A V4L2 camera
            that another program uses is only seen when it is opened.
    """

    name: str
    kind: str
    model: str
    modes: tuple[dict[str, Any], ...]
    blocked: str | None

    def as_document(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class DiscoveredCameras:
    """The cameras found, and one line for each obstacle that affects all cameras of a kind."""

    cameras: tuple[Camera, ...]
    obstacles: tuple[str, ...]


def list_cameras(
    root: Path = Path("/"),
    query: Callable[[Path], Node] = query_node,
    list_csi: Callable[[], list[dict[str, Any]]] | None = None,
    board: Board | None = None,
) -> DiscoveredCameras:
    """Return the cameras of this machine, without disturbing programs that use them.

    Args:
        root: Root of the file system that is searched.
        query: Reads the properties of a V4L2 device.
        list_csi: Lists the cameras of picamera2; default: `picamera.list_picameras`.
        board: The machine; default: this one.
    """
    board = board or read_board(root)
    obstacles = []
    if board.userland_bits == 32:
        obstacles.append("onnxruntime has no packages for this 32-bit system: install a 64-bit Raspberry Pi OS")
    cameras: list[Camera] = []
    try:
        cameras += [_csi_camera(entry) for entry in (list_csi or _list_picameras)()]
    except SourceError as error:
        if board.is_raspberry_pi:
            obstacles.append(str(error))
    nodes = v4l2_cameras(usb_only=board.is_raspberry_pi, root=root)
    cameras += [camera for node in nodes if (camera := _v4l2_camera(node, query)) is not None]
    return DiscoveredCameras(tuple(cameras), tuple(obstacles))


def _list_picameras() -> list[dict[str, Any]]:
    from edgekit.device.sources.picamera import list_picameras

    return list_picameras()


def _csi_camera(entry: dict[str, Any]) -> Camera:
    number = int(entry.get("Num", 0))
    error = entry.get("error")
    modes = tuple({"sensor_mode": index, **mode} for index, mode in enumerate(entry.get("modes", ())))
    return Camera(
        name="picamera2" if number == 0 else f"picamera2:{number}",
        kind="picamera2",
        model=str(entry.get("Model") or entry.get("Id") or "unknown"),
        modes=modes,
        # A camera that could be opened has `modes`, possibly empty, and may also have an error.
        blocked=f"{error}: stop the program that uses it" if error and "modes" not in entry else None,
    )


def _v4l2_camera(path: Path, query: Callable[[Path], Node]) -> Camera | None:
    """Return the camera of a V4L2 device, None if the device does not capture images."""
    name = str(path)
    try:
        node = query(path)
    except PermissionError:
        return Camera(name, "v4l2", "unknown", (), "permission denied: add your user to the group 'video'")
    except OSError as error:
        return Camera(name, "v4l2", "unknown", (), f"the driver cannot be queried: {error.strerror or error}")
    if not node.captures:
        return None
    modes = tuple(
        {"format": mode.pixel_format, "size_wh": list(mode.size_wh), "fps": list(mode.fps)} for mode in node.modes
    )
    return Camera(name, "v4l2", node.card, modes, None)
