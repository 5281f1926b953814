"""Which cameras are here, what they can do, and what stands in the way of using them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.boards import Board, read_board
from edgekit.device.sources.opencv import node_holders, v4l2_cameras
from edgekit.device.sources.v4l2 import Node, ask_node
from edgekit.errors import SourceError


@dataclass(frozen=True)
class Camera:
    """One camera.

    Attributes:
        name: What to write behind `--camera`.
        kind: "picamera2" or "v4l2".
        model: What it calls itself.
        modes: Sizes and rates in the words of its kind, ready for JSON.
        blocked: Why it cannot be used now, None if it can.
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
class Inventory:
    """The cameras, and what keeps whole kinds of them away, one line each."""

    cameras: tuple[Camera, ...]
    obstacles: tuple[str, ...]


def list_cameras(
    root: Path = Path("/"),
    ask: Callable[[Path], Node] = ask_node,
    list_ribbon: Callable[[], list[dict[str, Any]]] | None = None,
    board: Board | None = None,
) -> Inventory:
    """Return what is here; cameras that others use are left alone.

    Args:
        root: Where the machine's files lie.
        ask: Asks a V4L2 node.
        list_ribbon: Asks picamera2; default: `picamera.list_picameras`.
        board: The machine; default: this one.
    """
    board = board or read_board(root)
    on_a_pi = board.is_raspberry_pi
    obstacles = []
    if board.userland_bits == 32:
        obstacles.append(
            "this system is 32-bit, for which onnxruntime has no packages: install a 64-bit Raspberry Pi OS"
        )
    cameras: list[Camera] = []
    try:
        cameras += [_ribbon(entry) for entry in (list_ribbon or _list_picameras)()]
    except SourceError as error:
        if on_a_pi:
            obstacles.append(str(error))
    nodes = v4l2_cameras(usb_only=on_a_pi, root=root)
    cameras += [camera for node in nodes if (camera := _v4l2(node, root, ask)) is not None]
    return Inventory(tuple(cameras), tuple(obstacles))


def _list_picameras() -> list[dict[str, Any]]:
    from edgekit.device.sources.picamera import list_picameras

    return list_picameras()


def _ribbon(entry: dict[str, Any]) -> Camera:
    number = int(entry.get("Num", 0))
    error = entry.get("error")
    modes = tuple({"sensor_mode": index, **mode} for index, mode in enumerate(entry.get("modes", ())))
    return Camera(
        name="picamera2" if number == 0 else f"picamera2:{number}",
        kind="picamera2",
        model=str(entry.get("Model") or entry.get("Id") or "unknown"),
        modes=modes,
        # Without modes the camera can still be used; without having been opened it cannot.
        blocked=f"{error}: stop the program that uses it" if error and "modes" not in entry else None,
    )


def _v4l2(path: Path, root: Path, ask: Callable[[Path], Node]) -> Camera | None:
    name = str(path)
    try:
        node = ask(path)
    except PermissionError:
        return Camera(name, "v4l2", "unknown", (), "your user may not use it: add it to the group 'video'")
    except OSError as error:
        return Camera(name, "v4l2", "unknown", (), f"it cannot be asked: {error.strerror or error}")
    if not node.captures:
        return None
    holders = [holder for holder in node_holders(path, root / "proc") if f"pid {os.getpid()} " not in holder]
    modes = tuple(
        {"format": mode.pixel_format, "size_wh": list(mode.size_wh), "fps": list(mode.fps)} for mode in node.modes
    )
    return Camera(name, "v4l2", node.card, modes, f"held by {', '.join(holders)}: stop it" if holders else None)
