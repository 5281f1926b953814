"""Camera discovery: the cameras of this machine, and what prevents their use."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.boards import Board, read_board
from edgekit.device.sources.opencv import NOT_PERMITTED, v4l2_cameras
from edgekit.errors import SourceError
from edgekit.text import printable


@dataclass(frozen=True)
class Camera:
    """One camera.

    Attributes:
        name: The value for `--camera`.
        kind: "picamera2" or "v4l2".
        model: The name that the driver reports.
        modes: Sensor modes of picamera2, ready for JSON; `v4l2-ctl -d NAME --list-formats-ext` lists those of other
            cameras.
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
    list_csi: Callable[[], list[dict[str, Any]]] | None = None,
    board: Board | None = None,
) -> DiscoveredCameras:
    """Return the cameras of this machine, without disturbing programs that use them.

    Args:
        root: Root of the file system that is searched.
        list_csi: Lists the cameras of picamera2; default: `picamera.list_picameras`.
        board: The machine; default: this one.
    """
    board = board or read_board(root)
    obstacles = []
    cameras: list[Camera] = []
    try:
        cameras += [_csi_camera(entry) for entry in (list_csi or _list_picameras)()]
    except SourceError as error:
        if board.is_raspberry_pi:
            obstacles.append(str(error))
    cameras += [_v4l2_camera(node, root) for node in v4l2_cameras(usb_only=board.is_raspberry_pi, root=root)]
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


def _v4l2_camera(node: Path, root: Path) -> Camera:
    name = root / "sys/class/video4linux" / node.name / "name"
    model = printable(name.read_text().strip()) if name.exists() else "unknown"
    may_open = os.access(root / node.relative_to("/"), os.R_OK | os.W_OK)
    return Camera(str(node), "v4l2", model, (), None if may_open else NOT_PERMITTED)
